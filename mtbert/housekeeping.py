"""What a project no longer needs: checkpoints, leftovers of killed experiments and writes, outputs of runs no longer declared."""

import fcntl
import os
import platform
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mtbert.files import alive
from mtbert.training.work import LOCK, work_folders

WORK = Path(".mtbert")
UNDECLARED = "output of a run that params.yaml does not declare"
STARTUP = 60  # seconds in which a new experiment's process may not have entered its workspace yet
# Folders of runs' outputs, and the file that every output has; folders without it are the user's own.
OUTPUTS = {"models": "config.json", "models/converted": "config.json", "results": "metrics.json"}
# Folders with a file for each run, its ending, and the text that every such file has.
FILES = {"metrics": (".json", b'"overall"'), "plots": (".csv", b"epoch,step")}


class Leftover(NamedTuple):
    """A path that can be removed.

    Attributes:
        path: relative to the project's root; size: bytes; why: what it is.
    """

    path: Path
    size: int
    why: str


def leftovers(root: Path, runs: Collection[str]) -> list[Leftover]:
    """All that can be removed from the project at `root`, where `runs` are declared; nothing that a process uses.

    Checkpoints are included, although a run with the same settings, data and code would still resume from them; `why` says so.
    """
    found = dict([*_checkpoints(root), *_outputs(root, runs), *_workspaces(root), *_temporaries(root)])
    outer = {path: why for path, why in found.items() if not found.keys() & set(path.parents)}
    return [Leftover(path.relative_to(root), size_of(path), why) for path, why in outer.items()]


def remove(root: Path, runs: Collection[str], listed: Collection[Leftover]) -> None:
    """Delete what was listed and can still be removed: a run may have started since.

    Raises:
        OSError: a path cannot be deleted.
    """
    paths = {leftover.path for leftover in listed}
    for path in (root / leftover.path for leftover in leftovers(root, runs) if leftover.path in paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def listing(found: Collection[Leftover]) -> str:
    """A line for each leftover, and the total."""
    if not found:
        return "Nothing to remove."
    lines = [f"{human(leftover.size):>10}  {leftover.path}: {leftover.why}" for leftover in found]
    return "\n".join([*lines, f"{human(sum(leftover.size for leftover in found)):>10}  total"])


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed, and a file that vanishes meanwhile has none."""
    if path.is_dir() and not path.is_symlink():
        return sum(size_of(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def human(size: int) -> str:
    """1234567 -> 1.2 MB."""
    number, units = float(size), ["bytes", "kB", "MB", "GB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.3g} {units[0]}"


def _checkpoints(root: Path) -> Iterator[tuple[Path, str]]:
    for folder in (root / WORK, *sorted(root.glob(f"studies/*/{WORK}"))):
        for work in work_folders(folder):
            if not _held(work.path / LOCK):
                what = f"{work.run or 'a run'}, stopped after step {work.step:,}, {work.age / 86400:.1f} days ago"
                yield work.path, f"checkpoint of {what}; the same settings would resume from it"


def _held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _temporaries(root: Path) -> Iterator[tuple[Path, str]]:
    """`.NAME.HOST.PID.RANDOM.tmp` (mtbert.files) of processes on this host that no longer run."""
    ours = re.compile(rf"\..+\.{re.escape(platform.node())}\.(\d+)\.\w+(\.old)?\.tmp")
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            match = ours.fullmatch(name)
            if match and not alive(int(match[1])):
                yield Path(folder, name), "temporary file of a killed write"
        names[:] = sorted(name for name in names if name == WORK.name or not name.startswith("."))


def _workspaces(root: Path) -> Iterator[tuple[Path, str]]:
    """Workspaces of `dvc exp run --temp` and DVC's queue that no process has as its working directory."""
    busy = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # just ended, or another user's
            busy.update([link.readlink(), *link.readlink().parents])
    for pattern in ("tmp*", "standalone/tmp*"):
        for folder in sorted((root / ".dvc/tmp/exps").glob(pattern)):
            if folder.resolve() not in busy and folder.stat().st_mtime < time.time() - STARTUP:
                yield folder, "workspace of a killed experiment"


def _outputs(root: Path, runs: Collection[str]) -> Iterator[tuple[Path, str]]:
    in_training = {lock.name for lock in (root / WORK / "locks").glob("*") if _held(lock)}
    in_use = {*runs, *in_training, "pretrained", "converted"}
    for parent, mark in OUTPUTS.items():
        for folder in sorted((root / parent).glob("[!.]*")):
            if folder.name not in in_use and not folder.is_symlink() and (folder / mark).is_file():
                yield folder, UNDECLARED
    for parent, (ending, text) in FILES.items():
        for file in sorted((root / parent).glob(f"[!.]*{ending}")):
            if file.stem not in in_use and not file.is_symlink() and text in file.read_bytes():
                yield file, UNDECLARED
