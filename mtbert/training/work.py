"""Folders of checkpoints of runs under way, one for each fingerprint: who holds which, and which may go. Imports no torch."""

import fcntl
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from mtbert.errors import MtbertError
from mtbert.files import TEMPORARY, atomic_json, remove_tree

LATEST, ABOUT, LOCK = "latest.json", "run.json", "lock"
NAME = re.compile(r"[0-9a-f]{24}(-\d+)?")


class WorkFolder(NamedTuple):
    """What `mtbert clean` and `mtbert doctor` show of a folder of checkpoints.

    Attributes:
        run, workspace: whose it is, and the folder that the run was started in; empty where a kill came before they were written.
        step: steps done at its checkpoint, 0 where there is none.
        size: bytes on disk.
        age: seconds since something was last written there.
    """

    path: Path
    run: str
    workspace: str
    step: int
    size: int
    age: float


def work_root(cwd: Path) -> Path:
    """Where checkpoints lie: .mtbert in `cwd`, or, in a temporary workspace of a DVC experiment, in the project that it is of.

    DVC removes such a workspace, ROOT/.dvc/tmp/exps/.../tmpXXXX, when the experiment ends or is interrupted.
    """
    cwd = cwd.resolve()
    outermost = [folder for folder in cwd.parents if cwd.is_relative_to(folder / ".dvc/tmp/exps")]
    return (outermost[-1] if outermost else cwd) / ".mtbert"


@contextmanager
def work_folder(root: Path, run: str, name: str) -> Iterator[Path]:
    """A folder for a run's checkpoints that no other process uses meanwhile, removed if the block ends without an exception.

    Of the run's earlier folders with other fingerprints the newest stays, since an edit may be undone. Another process that trains
    the same thing in another workspace has its own folder beside this one.

    Args:
        root: as `work_root` says.
        run: the run's name.
        name: its fingerprint.

    Raises:
        MtbertError: there is a link where a folder should be.
    """
    folder, lock = _free_folder(root, name)
    with lock:
        workspace = str(Path.cwd())
        atomic_json(folder / ABOUT, {"run": run, "workspace": workspace})
        kept = False
        for other in sorted(work_folders(root), key=lambda one: one.age):
            gone = other.workspace == workspace or not Path(other.workspace).is_dir()
            if other.run != run or other.path == folder or not gone:
                continue
            if kept or not other.step or other.path.name.startswith(name):
                remove_work(other.path)
            else:
                kept = True
        for left in root.glob(f".*{TEMPORARY}"):
            remove_tree(left)
        yield folder
        _remove(folder)


def work_folders(root: Path) -> list[WorkFolder]:
    """All folders of checkpoints under `root`, by name; one that another process removes meanwhile is left out."""
    folders = sorted(path for path in root.glob("*") if NAME.fullmatch(path.name) and path.is_dir())
    return [about for about in map(_described, folders) if about is not None]


def remove_work(folder: Path) -> bool:
    """Delete a folder of checkpoints; False, and nothing is deleted, if a living process holds it."""
    if not folder.is_dir():
        return True
    lock = _claim(folder)
    if lock is None:
        return False
    with lock:
        _remove(folder)
    return True


def checkpoint_step(folder: Path) -> int:
    """Steps done at the checkpoint in `folder`, 0 where there is none; `load_checkpoint` says what is wrong with it."""
    return checkpoint_log(folder)[0]


def checkpoint_log(folder: Path) -> tuple[int, str | None]:
    """Steps done at the checkpoint in `folder` and the checksum of their lines in steps.csv, as `StepLog` takes them."""
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        return int(latest["step"]), latest["progress"].get("log")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, None


@contextmanager
def only_writer(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock` for the block, so that one process at a time trains a run; the kernel frees it with the process.

    Raises:
        MtbertError: another process holds it; names that process and what to do.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        if not _locked(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise MtbertError(
                f"{what} is being trained by process {holder} ({lock}); wait for it, or stop it with `kill {holder}`"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _free_folder(root: Path, name: str) -> tuple[Path, IO[str]]:
    for n in itertools.count(1):
        folder = root / (name if n == 1 else f"{name}-{n}")
        for place in (root, folder):
            if place.is_symlink():
                raise MtbertError(f"{place}: a link, where checkpoints should lie; remove it")
        lock = _claim(folder)
        if lock is not None:
            return folder, lock
    raise AssertionError("no end of numbers")


def _claim(folder: Path) -> IO[str] | None:
    """The lock of a folder, held, which is made if there is none; None if another process holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / LOCK).open("a")
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        if not _locked(lock):
            lock.close()
            return None
        try:
            if os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.close()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Delete a folder whose lock is held: first its name, so that a process that starts now makes a new one."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY}")
    folder.rename(hidden)
    remove_tree(hidden)


def _described(folder: Path) -> WorkFolder | None:
    try:
        stats = [path.stat() for path in folder.iterdir()]
        newest = max(stat.st_mtime for stat in [folder.stat(), *stats])
    except FileNotFoundError:
        return None
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        run, workspace = str(about["run"]), str(about["workspace"])
    except (OSError, ValueError, KeyError, TypeError):
        run = workspace = ""
    size = sum(stat.st_size for stat in stats)
    return WorkFolder(folder, run, workspace, checkpoint_step(folder), size, time.time() - newest)
