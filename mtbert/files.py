"""Atomic writes: a kill or a full disk leaves the old content or the new, never a part.

A killed writer leaves a hidden sibling, `.NAME.HOST.PID.RANDOM.tmp`; the next write of NAME on that host removes it.
"""

import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".tmp"


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary sibling, flush it to disk, then rename it over `path`."""
    with replaced_file(path) as file:
        file.write(data)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary sibling of `path` to write into, which is flushed to disk and renamed over `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}"
    with _naming(path.parent):
        opened = fresh.open("xb")  # not by mkstemp, whose files are private: the umask decides who may read it
    try:
        with _naming(path):
            with opened as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sweep(path)
    sync_folder(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """Like `atomic_write_bytes`, UTF-8 encoded, newlines as given."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; NaN and infinity raise ValueError: they are not JSON."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Hex sha256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty temporary sibling of `path`, removed when the block ends, or by the next call after a kill."""
    folder = _temporary_folder(path)
    try:
        yield folder
    finally:
        remove_tree(folder)
        _sweep(path)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty temporary sibling of `path` to write into, which replaces `path` if the block succeeds.

    The old folder is renamed before the new one takes its name, and deleted afterwards. A kill between the two renames leaves both
    folders complete under hidden names and no `path`; DVC then finds the stage's out missing and runs the stage again.
    """
    fresh = _temporary_folder(path)
    old = fresh.with_suffix(f".old{TEMPORARY}")
    try:
        yield fresh
        fresh.chmod(0o755)
        if path.is_symlink() or path.exists():
            path.replace(old)
        fresh.replace(path)
    except BaseException:
        remove_tree(fresh)
        if old.is_symlink() or old.exists():
            old.replace(path)
        raise
    remove_tree(old)
    _sweep(path)
    sync_folder(path.parent)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors name `path`: that of a full disk names no file, others a temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _temporary_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path.parent):
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_prefix(path)}{os.getpid()}.", suffix=TEMPORARY))


def _prefix(path: Path) -> str:
    return f".{path.name}.{platform.node()}."


def _sweep(path: Path) -> None:
    """Remove the temporary siblings of `path` that killed writers on this host left."""
    for sibling in path.parent.glob(f"{glob.escape(_prefix(path))}*{TEMPORARY}"):
        pid = sibling.name.removeprefix(_prefix(path)).partition(".")[0]
        if pid.isdecimal() and not alive(int(pid)):
            remove_tree(sibling)


def alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove_tree(path: Path) -> None:
    """Delete a file, a link or a folder with its content, read-only or not; a missing path is no error."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    _make_writable(path)
    shutil.rmtree(path, ignore_errors=True)


def _make_writable(folder: Path) -> None:
    """Make this folder and its subfolders writable: deleting a file takes write permission on its folder."""
    with suppress(OSError):  # another user's, or just removed
        folder.chmod(0o700)
        for child in folder.iterdir():
            if child.is_dir() and not child.is_symlink():
                _make_writable(child)
