"""`mtbert clean` removes leftovers, and nothing that a process uses or params.yaml declares."""

import fcntl
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from mtbert.housekeeping import human, leftovers, listing, remove, size_of

HEX = "0123456789abcdef01234567"
RUNS = {"baseline"}


def ended() -> int:
    """The id of a process that no longer runs."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one leftover of each kind, and something similar that must be kept."""
    host, gone, alive = platform.node(), ended(), os.getpid()
    for name in (
        f".mtbert/{HEX}/latest.json",
        f"studies/one/.mtbert/{HEX}/latest.json",
        f".mtbert/{HEX}/.step.{host}.{gone}.abc_def1.tmp",
        ".mtbert/locks/baseline",
        ".mtbert/notes/mine",
        f"data/.raw.{host}.{gone}.abcdefgh.tmp/sst-dev.csv",
        f"models/.old.{host}.{gone}.abcdefgh.old.tmp/config.json",
        f"models/.new.{host}.{alive}.abcdefgh.tmp/config.json",
        f"models/.far.elsewhere.{gone}.abcdefgh.tmp/config.json",
        f".venv/.lib.{host}.{gone}.abcdefgh.tmp",
        "models/baseline/config.json",
        "models/pretrained/config.json",
        "models/mine/notes.txt",
        "models/dropped/config.json",
        "models/converted/baseline/config.json",
        "models/converted/dropped/config.json",
        "results/baseline/metrics.json",
        "results/dropped/metrics.json",
        "metrics/baseline.json",
        "metrics/mine.json",
        "plots/mine.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "metrics/dropped.json").write_bytes(b'{"overall": 1}')
    (tmp_path / "plots/dropped.csv").write_bytes(b"epoch,step")
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_kinds_are_found_and_nothing_else_is_touched(project: Path) -> None:
    before, found = files(project), leftovers(project, RUNS)
    assert listing(found).splitlines()[-1] == "  64 bytes  total"
    remove(project, RUNS, found)
    kept = {name for name in before if str(os.getpid()) in name or "elsewhere" in name or ".venv" in name}
    kept |= {name for name in before if any(part in name for part in ("baseline", "pretrained", "mine"))}
    assert files(project) == kept
    assert leftovers(project, RUNS) == []
    assert listing([]) == "Nothing to remove."


def test_a_run_in_training_is_kept(project: Path) -> None:
    locks = project / ".mtbert/locks/dropped", project / f".mtbert/{HEX}/lock"
    listed = leftovers(project, RUNS)
    with ExitStack() as held:
        for lock in locks:
            fcntl.flock(held.enter_context(lock.open("w")), fcntl.LOCK_EX)
        remove(project, RUNS, listed)  # the run started after the listing
    assert (project / f".mtbert/{HEX}/latest.json").exists()
    assert (project / "models/dropped").exists()


def test_workspaces_of_killed_experiments(tmp_path: Path) -> None:
    names = ("standalone/tmpkilled", "standalone/tmpbusy", "standalone/tmpfresh", "tmpkilled", "run/infos")
    for name in names:
        folder = tmp_path / ".dvc/tmp/exps" / name
        folder.mkdir(parents=True)
        (folder / "dvc.yaml").write_bytes(b"12345")
        if "fresh" not in name:
            os.utime(folder, (0, 0))
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path / ".dvc/tmp/exps" / names[1])
    try:
        found = leftovers(tmp_path, RUNS)
    finally:
        process.kill()
        process.wait()
    assert {leftover.path.relative_to(".dvc/tmp/exps").as_posix() for leftover in found} == {names[0], names[3]}


def test_a_link_is_not_followed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "config.json").write_text("{}", encoding="utf-8")
    (project / "models/linked").symlink_to(elsewhere)
    (project / ".mtbert" / HEX[::-1]).symlink_to(elsewhere)
    remove(project, RUNS, leftovers(project, RUNS))
    assert (elsewhere / "config.json").exists()
    assert not (project / ".mtbert" / HEX[::-1]).is_symlink(), "training refuses it, so it can go"


def test_human_readable_sizes() -> None:
    assert [human(size) for size in (0, 999, 1000, 1_234_567, 999_600, 94e6, 1.3e12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "1.23 MB",
        "1 MB",
        "94 MB",
        "1.3e+03 GB",
    ]


def test_a_file_that_vanishes_while_a_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").write_bytes(bytes(10))
    walked = [(str(tmp_path), [], ["kept", "vanished"])]
    monkeypatch.setattr(os, "walk", lambda _: iter(walked))
    assert size_of(tmp_path) == 10


def test_a_live_process_keeps_its_temporary_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`alive` decides, as for `mtbert.files`: /proc may hide the processes of other users."""
    monkeypatch.setattr("mtbert.housekeeping.alive", lambda _: True)
    assert not [one for one in leftovers(project, RUNS) if one.why == "temporary file of a killed write"]
