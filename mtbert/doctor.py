"""`mtbert doctor`: what this machine and this checkout have, what they lack, and what to do about it."""

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mtbert.housekeeping import human, leftovers

SITE_CACHE = ".dvc-site-cache"
LITTLE, TOO_LITTLE = 5e9, 1e9  # bytes of free disk


class Check(NamedTuple):
    """One line. A `problem` stops the pipeline, a `note` does not; `remedy` says what to do, and is empty if all is well."""

    level: Literal["ok", "note", "problem"]
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:8}{self.what}{'; ' if self.remedy else ''}{self.remedy}"


def examine(root: Path, runs: Collection[str] | None) -> Iterator[Check]:
    """Run the checks, yielding each result as it is ready.

    Args:
        root: the project's root.
        runs: the runs declared in params.yaml; None if it cannot be read.
    """
    checks: list[Callable[[Path], Check]] = [_python, _torch, _processor, _gpu, _kernels, _git, _identity, _dvc]
    for check in [*checks, _site_cache, _disk]:
        yield check(root)
    yield _leftovers(root, runs)


def _python(_root: Path) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        return Check("ok", f"Python {version}")
    return Check("problem", f"Python {version}", "use 3.11 or 3.12: `make install PYTHON=python3.12`")


def _torch(_root: Path) -> Check:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return Check("problem", f"torch cannot be imported ({str(error).splitlines()[0]})", "run `make install`")
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"
    if not torch.version.cuda and Path("/proc/driver/nvidia/version").exists():
        remedy = "remove .venv, then run `make install`, which installs the GPU build on a machine with a GPU"
        return Check("note", f"torch {torch.__version__}, built {build}, but this machine has an NVIDIA GPU", remedy)
    return Check("ok", f"torch {torch.__version__}, built {build}")


def _processor(_root: Path) -> Check:
    try:
        compute = importlib.import_module("mtbert.training.compute")
    except (ImportError, OSError):
        return Check("note", "processor not examined", "see torch above")
    bf16 = compute.resolve("cpu", "auto", "auto").bf16
    return Check("ok", f"{compute.machine()}, {'in bf16' if bf16 else 'in fp32: it has no bf16 instructions'}")


def _gpu(_root: Path) -> Check:
    try:
        cuda = importlib.import_module("torch.cuda")
    except (ImportError, OSError):
        return Check("note", "GPU not examined", "see torch above")
    if cuda.is_available():
        return Check("ok", f"GPU {cuda.get_device_name()}")
    return Check("ok", "no GPU that torch can use; training runs on the CPU")


def _kernels(_root: Path) -> Check:
    try:
        engines = importlib.import_module("mtbert.engines")
    except (ImportError, OSError):
        return Check("note", "kernels not examined", "see torch above")
    found, which = engines.kernels()
    if not found:
        remedy = "install g++ (Debian: `apt install g++`); without it training is slower"
        return Check("note", which, remedy)
    return Check("ok", f"CPU kernels compiled by {which}")


def _git(root: Path) -> Check:
    if shutil.which("git") is None:
        return Check("note", "no git", "install git for experiments (`dvc exp`); `make reproduce` does not need it")
    if _output(root, "git", "rev-parse", "--git-dir") is None:
        remedy = "run `git init && git add -A && git commit -m start` for experiments (`dvc exp`); `make reproduce` does not need it"
        return Check("note", "no git repository", remedy)
    if _output(root, "git", "rev-parse", "--verify", "-q", "HEAD") is None:
        remedy = "run `git add -A && git commit -m start`; experiments (`dvc exp`) need a commit"
        return Check("note", "the git repository has no commit", remedy)
    return Check("ok", f"git repository at commit {_output(root, 'git', 'rev-parse', '--short', 'HEAD')}")


def _identity(root: Path) -> Check:
    missing = [key for key in ("user.name", "user.email") if not _output(root, "git", "config", key)]
    if missing:
        remedy = (
            "run `" + " && ".join(f'git config {key} "…"' for key in missing) + "`; commits and experiments need it"
        )
        return Check("note", f"git does not know your {' and '.join(missing)}", remedy)
    return Check("ok", "git knows your name and address")


def _dvc(root: Path) -> Check:
    version = _output(root, sys.executable, "-m", "dvc", "--version")
    if version is None:
        return Check("problem", "DVC does not run", "run `make install`")
    if not (root / ".dvc").is_dir():
        return Check("problem", f"DVC {version}, but no .dvc folder here", "restore it with `git checkout .dvc`")
    return Check("ok", f"DVC {version}")


def _site_cache(root: Path) -> Check:
    """DVC unpickles its state from there, so anyone who can write to it can run code as the user."""
    own = root / SITE_CACHE if str(root).isascii() else Path.home() / ".cache/mtbert/dvc"  # DVC's settings are ASCII
    quoted = shlex.quote(str(own))
    make = f"`mkdir -p -m 700 {quoted} && dvc config --local core.site_cache_dir {quoted}`"
    set_to = os.environ.get("DVC_SITE_CACHE_DIR") or _output(
        root, sys.executable, "-m", "dvc", "config", "core.site_cache_dir"
    )
    if not set_to:
        return Check(
            "note",
            "DVC keeps its state in a folder that all users of this machine share",
            f"{make} makes a private one",
        )
    folder = Path(set_to)
    if not folder.is_absolute():
        remedy = f"experiments and subfolders need an absolute path: {make}"
        return Check("problem", f"core.site_cache_dir is relative ({set_to})", remedy)
    try:
        status = folder.stat()
    except OSError as error:
        return Check("problem", f"{set_to}: {error.strerror}", f"{make} makes a new one")
    if status.st_uid != os.getuid():
        return Check(
            "problem", f"{set_to}, where DVC keeps its state, belongs to another user", f"{make} makes a private one"
        )
    if status.st_mode & 0o022:
        remedy = f"`chmod 700 {shlex.quote(set_to)}`"
        return Check("problem", f"other users can write to {set_to}, where DVC keeps its state", remedy)
    return Check("ok", f"DVC keeps its state in {set_to}")


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    what = f"{human(free)} of disk free"
    if free < LITTLE:
        remedy = (
            "free some: `mtbert clean` removes leftovers, `dvc gc --workspace` removes cached results of other settings"
        )
        return Check("problem" if free < TOO_LITTLE else "note", what, remedy)
    return Check("ok", what)


def _leftovers(root: Path, runs: Collection[str] | None) -> Check:
    if runs is None:
        return Check("problem", "params.yaml cannot be read", "run `mtbert clean` to see why")
    found = leftovers(root, runs)
    if not found:
        return Check("ok", "no leftovers of killed or undeclared runs")
    counts = {why: sum(leftover.why == why for leftover in found) for why in (leftover.why for leftover in found)}
    listed = ", ".join(f"{count} × {why.partition(';')[0]}" for why, count in counts.items())
    size = human(sum(leftover.size for leftover in found))
    return Check("note", f"{size} of leftovers ({listed})", "run `mtbert clean` to list and remove them")


def _output(root: Path, *command: str) -> str | None:
    """What a command prints; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()
