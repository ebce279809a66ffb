"""Checkpoint folders: each has one process, and those that no run will resume from are removed."""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.training.work import (
    FURTHER,
    checkpoint_log,
    checkpoint_step,
    only_writer,
    remove_work,
    work_folder,
    work_folders,
    work_root,
)

A, B, C, D = (letter * 24 for letter in "abcd")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """.mtbert in the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project/.mtbert"


class Killed(Exception):
    """Simulates a kill."""


def killed(root: Path, run: str, name: str, step: int = 5) -> Path:
    """An unfinished run with a checkpoint, or without one if the step is 0; each is a second newer than the one before."""
    with pytest.raises(Killed), work_folder(root, run, name) as folder:
        if step:
            (folder / "latest.json").write_text(json.dumps({"step": step, "progress": {"log": "sum"}}))
        for other in work_folders(root):
            for path in (other.path, *other.path.iterdir()):
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 1))
        raise Killed
    return folder


def names(root: Path) -> list[str]:
    return [folder.path.name for folder in work_folders(root)]


def test_a_finished_run_s_folder_is_removed_and_a_killed_one_s_kept(root: Path) -> None:
    with work_folder(root, "baseline", A) as folder:
        (folder / "latest.json").write_text("{}")
    assert list(root.iterdir()) == []
    assert killed(root, "baseline", A) == folder
    with pytest.raises(Killed), work_folder(root, "baseline", A) as again:
        assert again == folder and checkpoint_step(again) == 5
        raise Killed


def test_the_description_of_a_folder(root: Path) -> None:
    folder = killed(root, "baseline", A, step=7)
    (folder / "step-00000007.safetensors").write_bytes(bytes(1000))
    killed(root, "other", B, step=0)
    (root / "locks").mkdir()
    (root / C).mkdir()  # killed before it wrote run.json, or made by an earlier version
    first, second, third = work_folders(root)
    assert (first.path, first.run, first.workspace, first.step) == (folder, "baseline", str(Path.cwd()), 7)
    assert 0 <= first.age < 60
    assert (second.run, second.step) == ("other", 0)
    assert (third.run, third.workspace, third.step) == ("", "", 0)
    assert checkpoint_log(folder) == (7, "sum") and checkpoint_log(root / C) == (0, None)
    assert work_folders(root / "absent") == []


def test_the_newest_of_a_run_s_earlier_folders_is_kept(root: Path) -> None:
    for run in ("baseline", "other"):
        killed(root, run, A if run == "other" else D)
    for name, expected in ((B, [B, D]), (C, [B, C]), (B, [B, C]), (A + "-9", [])):
        if expected:
            killed(root, "baseline", name)
            assert [n for n in names(root) if n != A] == expected
    assert A in names(root), "another run's"


def test_a_folder_without_a_checkpoint_does_not_displace_one_with_it(root: Path) -> None:
    killed(root, "baseline", A)
    killed(root, "baseline", B, step=0)
    killed(root, "baseline", C)
    assert names(root) == [A, C]


def test_a_folder_with_a_checkpoint_of_further_pretraining_alone_is_kept(root: Path) -> None:
    folder = killed(root, "baseline", A, step=0)
    (folder / FURTHER).mkdir()
    (folder / FURTHER / "latest.json").write_text(json.dumps({"step": 3, "progress": {}}))
    (folder / FURTHER / "step-00000003.safetensors").write_bytes(bytes(9000))
    killed(root, "baseline", B)
    assert names(root) == [A, B]
    assert work_folders(root)[0].step == 3


def test_another_workspace_s_folders_are_kept_while_it_exists(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        killed(root, "baseline", A)
        killed(root, "baseline", B)
    killed(root, "baseline", C)
    assert names(root) == [A, B, C]
    elsewhere.rmdir()
    killed(root, "baseline", C)
    assert names(root) == [B, C]


@contextmanager
def other_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` and then waits in the block; it has printed \"held\" when this returns."""
    code = f"import sys, pathlib\nfrom mtbert.training.work import *\n{code}\n    print('held', flush=True)\n    sys.stdin.read()\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdin=pipe, stdout=pipe, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        yield child
        child.kill()


def holding(root: Path, run: str, name: str) -> str:
    return f"with work_folder(pathlib.Path({str(root)!r}), {run!r}, {name!r}) as folder:"


def test_two_processes_that_train_the_same_thing_do_not_share_a_folder(root: Path) -> None:
    """Two queued experiments do so, each in its own workspace."""
    with other_process(holding(root, "baseline", A)) as child:
        assert not remove_work(root / A)
        with pytest.raises(Killed), work_folder(root, "baseline", A) as mine:
            assert mine == root / f"{A}-2"
            raise Killed
        assert names(root) == [A, f"{A}-2"]
        with work_folder(root, "baseline", B):
            assert A in names(root), "a living process holds it"
        child.kill()
        child.wait()
    killed(root, "baseline", A)
    assert names(root) == [A], "the second has no use any more"


def test_the_folder_with_the_most_steps_is_resumed(root: Path) -> None:
    """Of two experiments that trained the same run and were stopped, one is started again."""
    with other_process(holding(root, "baseline", A)):
        second = killed(root, "baseline", A, step=900)
    (root / A / "latest.json").write_text(json.dumps({"step": 100, "progress": {}}))
    assert killed(root, "baseline", A, step=0) == second
    assert names(root) == [second.name] and checkpoint_step(second) == 900


def test_remove_work(root: Path) -> None:
    folder = killed(root, "baseline", A)
    assert remove_work(folder) and remove_work(folder)
    assert list(root.iterdir()) == []


def test_the_next_start_removes_what_a_killed_removal_left(root: Path) -> None:
    killed(root, "baseline", A).rename(root / f".{A}.77.tmp")
    killed(root, "baseline", B)
    assert [path.name for path in root.iterdir()] == [B]


@pytest.mark.parametrize("place", ["", A])
def test_a_link_is_refused(root: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MtbertError, match="is a link, but checkpoints need a folder"), work_folder(root, "baseline", A):
        pytest.fail("written through a link")


def test_a_folder_that_is_removed_while_it_is_locked_is_made_again(root: Path) -> None:
    """Processes that start and finish the same run repeatedly: none fails, no folder remains."""
    code = "for n in range(200):\n  with work_folder(pathlib.Path(sys.argv[1]), 'r', 'a' * 24) as f: (f / 'x').touch()\nif 1:"
    with other_process(code, str(root)), other_process(code, str(root)):
        pass
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("workspace", "expected"),
    [
        ("project", "project"),
        ("project/.dvc/tmp/exps/standalone/tmp1", "project"),
        ("project/.dvc/tmp/exps/tmp1/sub", "project"),
        ("outer/.dvc/tmp/exps/tmp1/.dvc/tmp/exps/tmp2", "outer"),
        ("project/.dvc/tmp", "project/.dvc/tmp"),
    ],
)
def test_experiments_keep_their_checkpoints_in_the_project(tmp_path: Path, workspace: str, expected: str) -> None:
    (tmp_path / workspace).mkdir(parents=True)
    assert work_root(tmp_path / workspace) == tmp_path.resolve() / expected / ".mtbert"
    (tmp_path / "link").symlink_to(tmp_path / workspace)
    assert work_root(tmp_path / "link") == tmp_path.resolve() / expected / ".mtbert"


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    lock = tmp_path / "work" / "locks" / "baseline"
    with only_writer(lock, "baseline"):
        with (
            pytest.raises(MtbertError, match=f"baseline is being .* process {os.getpid()} .*kill {os.getpid()}"),
            only_writer(lock, "baseline"),
        ):
            pytest.fail("two writers")
        with only_writer(tmp_path / "locks" / "other", "other"):
            pass
    with only_writer(lock, "baseline"):
        pass
    with pytest.raises(ZeroDivisionError), only_writer(lock, "baseline"):
        raise ZeroDivisionError
    with only_writer(lock, "baseline"):
        pass


def test_a_holder_that_has_not_written_its_id_yet_is_unknown(tmp_path: Path) -> None:
    with (tmp_path / "baseline").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(MtbertError, match="by process unknown "), only_writer(tmp_path / "baseline", "baseline"):
            pytest.fail("two writers")


def test_another_process_s_lock_is_respected_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "baseline"
    with other_process("with only_writer(pathlib.Path(sys.argv[1]), 'baseline'):", str(lock)) as child:
        with (
            pytest.raises(MtbertError, match=f"by process {child.pid} on {platform.node()} "),
            only_writer(lock, "baseline"),
        ):
            pytest.fail("two writers")
        child.kill()
        child.wait()
        with only_writer(lock, "baseline"):
            assert lock.read_text(encoding="utf-8") == f"{os.getpid()} on {platform.node()}"


def test_a_file_system_without_locks_is_an_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r": this file system cannot lock files \(No locks available\); move the project to another one"
    with pytest.raises(MtbertError, match=f"baseline{message}"), only_writer(tmp_path / "baseline", "baseline"):
        pytest.fail("trained without a lock")
    with pytest.raises(MtbertError, match=f"lock{message}"), work_folder(root, "baseline", A):
        pytest.fail("trained without a lock")
