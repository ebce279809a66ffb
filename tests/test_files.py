"""Writes are all or nothing."""

import fnmatch
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtbert.files import (
    atomic_json,
    atomic_write_bytes,
    atomic_write_text,
    replaced_file,
    replaced_folder,
    scratch_folder,
    sha256_file,
)


def test_bytes_and_text_are_written_unchanged(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "new/folder/a.bin", b"\x00\r\n")
    assert (tmp_path / "new/folder/a.bin").read_bytes() == b"\x00\r\n"
    atomic_write_text(tmp_path / "b.txt", "é\n\r\n")
    assert (tmp_path / "b.txt").read_bytes() == "é\n\r\n".encode()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_a_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        for text in ("old", "new"):
            atomic_write_text(tmp_path / "a.txt", text)
            assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_scratch_folder_makes_the_folder_that_it_is_in(tmp_path: Path) -> None:
    (tmp_path / f"build/.taken.{platform.node()}.{2**22 + 1}.x.tmp").mkdir(parents=True)  # a killed process's
    with scratch_folder(tmp_path / "build/taken") as folder:
        assert folder.parent == tmp_path / "build" and list(folder.iterdir()) == []
    assert list((tmp_path / "build").iterdir()) == []


def test_content_is_flushed_before_the_rename_and_the_new_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, bool]] = []

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        flushed.append((0 if path.is_dir() else path.stat().st_size, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write_bytes(tmp_path / "a", b"new")
    assert flushed == [(3, False), (0, True)]
    with replaced_folder(tmp_path / "out"):
        pass
    assert len(flushed) == 3


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_text_and_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_json(path, {"b": [1, None], "a": "é"})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"b": [1, None], "a": "é"}
    assert text.endswith("}\n")
    assert "é" in text
    with pytest.raises(ValueError, match="JSON"):
        atomic_json(path, {"loss": float("nan")})
    assert path.read_text(encoding="utf-8") == text


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").write_text("old", encoding="utf-8")
    with replaced_folder(target) as folder:
        (folder / "fresh").write_text("new", encoding="utf-8")
        assert (target / "stale").exists(), "the old folder stands until the new one is complete"
    assert [path.name for path in target.iterdir()] == ["fresh"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as folder:
        (folder / "a").write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), replaced_folder(target) as folder:
        (folder / "a").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert (target / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "a").write_text("cached", encoding="utf-8")
    (tmp_path / "out").symlink_to(cache)
    with replaced_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("new", encoding="utf-8")
    assert not (tmp_path / "out").is_symlink()
    assert (cache / "a").read_text(encoding="utf-8") == "cached"


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from mtbert.files import atomic_write_bytes, replaced_folder

target, kind = Path(sys.argv[1]), sys.argv[2]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if kind == "file":
    os.fsync = die
    atomic_write_bytes(target, b"half")
if kind == "between":
    real, calls = Path.replace, []
    Path.replace = lambda *a: (calls.append(1), die() if len(calls) == 2 else real(*a))
with replaced_folder(target) as folder:
    (folder / "a").write_text("half")
    if kind == "folder":
        die()
"""


def killed(target: Path, kind: str) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(target), kind], cwd=root, timeout=60)
    assert done.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["folder", "between"])
def test_the_next_write_of_a_folder_removes_what_a_killed_writer_left(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as folder:
        (folder / "a").write_text("old", encoding="utf-8")
    killed(target, kind)
    left = [name for name in names(tmp_path) if name != "out"]
    assert len(left) == (2 if kind == "between" else 1)
    assert target.exists() == (kind == "folder")
    with replaced_folder(target) as folder:
        (folder / "a").write_text("new", encoding="utf-8")
    assert names(tmp_path) == ["out"]
    assert (target / "a").read_text(encoding="utf-8") == "new"


def test_the_next_write_of_a_file_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    killed(tmp_path / "a.json", "file")
    assert len(names(tmp_path)) == 1
    atomic_json(tmp_path / "b.json", 1)
    assert len(names(tmp_path)) == 2, "another file's write leaves it alone"
    atomic_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == ["a.json", "b.json"]


def test_a_running_writer_s_temporary_file_is_kept(tmp_path: Path) -> None:
    """Its own, another process's, and another host's, whose processes cannot be checked."""
    target = tmp_path / "out"
    with replaced_folder(target) as folder:
        (mine,) = names(tmp_path)
        others = [mine.replace(f".{os.getpid()}.", f".{os.getppid()}."), mine.replace(platform.node(), "elsewhere")]
        for other in others:
            (tmp_path / other).mkdir()
        with replaced_folder(target) as second:
            (second / "a").write_text("first to finish", encoding="utf-8")
        (folder / "a").write_text("last to finish", encoding="utf-8")
    assert names(tmp_path) == sorted([*others, "out"])
    assert (target / "a").read_text(encoding="utf-8") == "last to finish"


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A folder of a user without root's rights: root can delete read-only files."""
    if os.geteuid():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("killed_before", [False, True])
def test_a_read_only_old_folder_is_removed_too(mine: Path, killed_before: bool) -> None:
    target = mine / "out"
    with replaced_folder(target) as folder:
        (folder / "live/plots").mkdir(parents=True)
        (folder / "live/plots/a.tsv").write_text("old", encoding="utf-8")
    for inner in ("live/plots/a.tsv", "live/plots", "live", ""):
        (target / inner).chmod(0o555 if inner != "live" else 0)
    if killed_before:
        target.rename(mine / f".out.{platform.node()}.{2**22 + 1}.x.old.tmp")
    with replaced_folder(target) as folder:
        (folder / "a").write_text("new", encoding="utf-8")
    assert names(mine) == ["out"] and names(target) == ["a"]


def test_git_ignores_temporary_files(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    killed(tmp_path / "index.html", "file")
    (left,) = names(tmp_path)
    patterns = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert any(fnmatch.fnmatch(left, pattern) for pattern in patterns if pattern and "/" not in pattern)


def test_a_folder_that_may_not_be_written_is_named(mine: Path) -> None:
    """Not the temporary file that could not be made."""

    def write(kind: Callable[..., Any]) -> None:
        with kind(mine / "out"):
            pass

    mine.chmod(0o555)
    for kind in (replaced_file, replaced_folder, scratch_folder):
        with pytest.raises(PermissionError) as caught:
            write(kind)
        assert caught.value.filename == str(mine)
    mine.chmod(0o755)
