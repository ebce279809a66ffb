"""Collect the Python packages that a bundle carries: what the stages, the tests and the benchmarks import beside torch and numpy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mtbert.errors import MtbertError

GIVEN = ("torch", "numpy")  # the other machine has these
NEEDED = ("packaging", "pandas", "pydantic", "rich", "ruamel.yaml", "safetensors", "tokenizers", "typer")
TESTS = ("pytest", "hypothesis")  # where they are installed
OFFLINE = {"huggingface-hub"}  # tokenizers requires it, but imports it only to download
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def collect(site: Path, more: Iterable[str], python: str) -> None:
    """Write the packages and those that they require into `site`, in the versions that are installed here.

    Args:
        site: an empty folder.
        more: further packages that are installed here.
        python: the other machine's version, such as 3.12. If it is not this one, pip downloads wheels for Linux on x86-64.

    Raises:
        MtbertError: a package is not installed here or cannot be copied, or pip fails.
    """
    tests = [name for name in TESTS if find_spec(name)]
    # What torch requires may be too old there for NEEDED, which is carried whole; it is large, so `more` is carried without it.
    names = sorted((required([*NEEDED, *tests]) - set(GIVEN)) | (required(more) - required(GIVEN)))
    if python == HERE:
        for name in names:
            _copy(installed(name), site)
    else:
        _download(names, site, python)
    for unused in ("pandas/tests", "bin"):
        shutil.rmtree(site / unused, ignore_errors=True)


def required(names: Iterable[str]) -> set[str]:
    """These packages and all that they require on this machine, without extras."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in OFFLINE:
            continue
        found.add(name)
        for line in installed(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def installed(name: str) -> Distribution:
    try:
        return Distribution.from_name(name)
    except PackageNotFoundError:
        raise MtbertError(
            f"{name}: not installed here; run `python -m pip install {name}`, then the same command again"
        ) from None


def arrange(site: Path, first: Path, roots: Iterable[str], machine: Iterable[str]) -> list[str]:
    """Copy to `first` the bundle's packages whose version on the machine does not meet the requirements; returns their names.

    Where the machine's own packages meet them, they are used, since they fit each other.

    Args:
        site: the bundle's packages.
        roots: what mtbert requires.
        machine: the folders of the machine's packages.
    """
    bundled, there = _found([str(site)]), _found(machine)
    waiting = [*roots, *(line for name, one in bundled.items() if name not in there for line in one.requires or ())]
    chosen: list[str] = []
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not applies or name in chosen or name not in bundled or name not in there:
            continue
        if not requirement.specifier.contains(there[name].version, prereleases=True):
            chosen.append(name)
            _copy(bundled[name], first)
            waiting += bundled[name].requires or ()
    return chosen


def _found(folders: Iterable[str]) -> dict[str, Distribution]:
    """The packages in these folders by name; of two versions the first, as for an import."""
    found: dict[str, Distribution] = {}
    for one in distributions(path=list(folders)):
        if "Name" in one.metadata:  # not in what an interrupted pip leaves, such as ~umpy-1.0.dist-info
            found.setdefault(canonicalize_name(one.name), one)
    return found


def _copy(package: Distribution, site: Path) -> None:
    pinned = f"{package.name}=={package.version}"
    if package.files is None:
        raise MtbertError(
            f"{package.name}: installed without a list of its files (RECORD), so it cannot be copied; run "
            f"`python -m pip install --ignore-installed --no-deps {pinned}`, then the same command again"
        )
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        raise MtbertError(
            f"{package.name}: an editable install ({origin.get('url')}), so it cannot be copied; run "
            f"`python -m pip install --force-reinstall --no-deps {pinned}`, then the same command again"
        )
    for file in package.files:
        source = Path(str(file.locate()))
        if ".." not in file.parts and file.suffix != ".pyc" and source.is_file():
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, site / file)


def _download(names: Iterable[str], site: Path, python: str) -> None:
    pins = [f"{name}=={installed(name).version}" for name in names]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--target", str(site), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", python, *(f"--platform={name}" for name in PLATFORMS)]
    done = subprocess.run([*command, *pins], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise MtbertError(
            f"pip finds no packages for Python {python} ({reason}); connect to a package index, or make the bundle with Python {python}"
        )
