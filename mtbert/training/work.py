"""Checkpoint folders of unfinished runs, one per fingerprint: locking, listing and removal. Imports no torch."""

import fcntl
import itertools
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from mtbert.errors import MtbertError
from mtbert.files import TEMPORARY, atomic_json, remove_tree

LATEST, ABOUT, LOCK = "latest.json", "run.json", "lock"
FURTHER = "further"  # in a run's folder, that of its further pretraining
NAME = re.compile(r"[0-9a-f]{24}(-\d+)?")


class WorkFolder(NamedTuple):
    """A checkpoint folder, as `mtbert clean` and `mtbert doctor` show it.

    Attributes:
        run, workspace: the run's name and the folder that it was started in; empty if a kill prevented writing them.
        step: steps done at its checkpoint, before the first one at that of further pretraining; 0 if there is none.
        age: seconds since the last write.
    """

    path: Path
    run: str
    workspace: str
    step: int
    age: float


def work_root(cwd: Path) -> Path:
    """Where checkpoints are kept: .mtbert in `cwd`, or, in a temporary workspace of a DVC experiment, in the project itself.

    DVC removes such a workspace, ROOT/.dvc/tmp/exps/.../tmpXXXX, when the experiment ends or is interrupted.
    """
    cwd = cwd.resolve()
    outermost = [folder for folder in cwd.parents if cwd.is_relative_to(folder / ".dvc/tmp/exps")]
    return (outermost[-1] if outermost else cwd) / ".mtbert"


@contextmanager
def work_folder(root: Path, run: str, name: str) -> Iterator[Path]:
    """A locked folder for a run's checkpoints, removed if the block ends without an exception.

    Of the run's folders with other fingerprints the newest is kept, so that undoing an edit resumes from it; the others
    are removed. A process that trains the same run in another workspace gets a folder of its own.

    Args:
        root: as `work_root` returns it.
        run: the run's name.
        name: its fingerprint.

    Raises:
        MtbertError: the folder, or `root`, is a link, or the file system has no locks.
    """
    folder, lock = _free_folder(root, name)
    with lock:
        workspace = str(Path.cwd())
        atomic_json(folder / ABOUT, {"run": run, "workspace": workspace})
        newest_kept = False
        for other in sorted(work_folders(root), key=lambda one: one.age):
            ours = other.workspace == workspace or not Path(other.workspace).is_dir()
            if other.run != run or other.path == folder or not ours:
                continue
            if newest_kept or not other.step or other.path.name.startswith(name):
                remove_work(other.path)
            else:
                newest_kept = True
        for temporary in root.glob(f".*{TEMPORARY}"):
            remove_tree(temporary)
        yield folder
        _remove(folder)


def work_folders(root: Path) -> list[WorkFolder]:
    """The checkpoint folders under `root`, by name, without those that another process is removing."""
    folders = sorted(path for path in root.glob("*") if NAME.fullmatch(path.name) and path.is_dir())
    return [work for work in map(_described, folders) if work is not None]


def remove_work(folder: Path) -> bool:
    """Delete a checkpoint folder; if a process holds its lock, delete nothing and return False."""
    if not folder.is_dir():
        return True
    lock = _claim(folder)
    if lock is None:
        return False
    with lock:
        _remove(folder)
    return True


def checkpoint_step(folder: Path) -> int:
    """Steps done at the checkpoint in `folder`; 0 if there is none or it is damaged, which `load_checkpoint` reports."""
    return checkpoint_log(folder)[0]


def checkpoint_log(folder: Path) -> tuple[int, str | None]:
    """Steps done at the checkpoint in `folder`, and the checksum of their lines in steps.csv, for `StepLog`."""
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        return int(latest["step"]), latest["progress"].get("log")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, None


@contextmanager
def only_writer(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock` for the block, so that one process at a time trains a run; the lock ends with the process.

    Raises:
        MtbertError: another process holds the lock, or the file system has no locks.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        if not _locked(file):
            file.seek(0)
            holder = file.read().strip()
            stop = f", or stop it there with `kill {holder.split()[0]}`" if holder else ""
            raise MtbertError(f"{what} is being trained by process {holder or 'unknown'} ({lock}); wait for it{stop}")
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _free_folder(root: Path, name: str) -> tuple[Path, IO[str]]:
    """The folder of this fingerprint with the most steps that no process holds, or a new one, and its lock."""
    there = [work for work in work_folders(root) if work.path.name.partition("-")[0] == name]
    furthest = [work.path for work in sorted(there, key=lambda work: -work.step)]
    for folder in itertools.chain(furthest, (root / (name if n == 1 else f"{name}-{n}") for n in itertools.count(1))):
        for place in (root, folder):
            if place.is_symlink():
                raise MtbertError(f"{place}: is a link, but checkpoints need a folder; remove the link")
        lock = _claim(folder)
        if lock is not None:
            return folder, lock
    raise AssertionError("unreachable: the count has no end")


def _claim(folder: Path) -> IO[str] | None:
    """Make the folder if needed and take its lock; None if another process holds it."""
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
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        raise MtbertError(
            f"{file.name}: this file system cannot lock files ({error.strerror}); move the project to another one"
        ) from None
    return True


def _remove(folder: Path) -> None:
    """Delete a folder whose lock we hold. It is renamed first, so that a process starting now makes a new one."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY}")
    folder.rename(hidden)
    remove_tree(hidden)


def _described(folder: Path) -> WorkFolder | None:
    try:
        newest = max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
    except FileNotFoundError:
        return None
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        run, workspace = str(found["run"]), str(found["workspace"])
    except (OSError, ValueError, KeyError, TypeError):
        run = workspace = ""
    step = checkpoint_step(folder) or checkpoint_step(folder / FURTHER)
    return WorkFolder(folder, run, workspace, step, time.time() - newest)
