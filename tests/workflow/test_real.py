"""The real stages on Snakemake: the bytes of `dvc repro`, though stages are killed and Snakemake is interrupted or killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.project import call, commit, edit, few_runs, keep_runs, must, start, tiny_project

SNAKEMAKE = ("snakemake", "--snakefile", "build/workflow/Snakefile", "--cores", "2", "--keep-going")
RECORD = "ls build/workflow/done | xargs dvc commit --force"
WRITE = ("python", "-m", "mtbert", "workflow", "snakemake")
OUTS = ("data", "models", "plots", "results", "metrics", "reports")


def made(folder: Path, **settings: object) -> Path:
    project = tiny_project(folder, **settings)
    few_runs(project)
    commit(project, "tiny")
    return project


def outputs(project: Path) -> dict[str, bytes]:
    """Every file that the stages wrote."""
    files = (path for folder in OUTS for path in (project / folder).rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in files if path.name != ".gitignore"}


def at_work(project: Path) -> list[psutil.Process]:
    """Stages and engines that run in this project."""
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(project)]


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_that_dvc_then_calls_up_to_date(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "a b é" / "project")
    keep_runs(project, "baseline")
    commit(project, "tiny")
    assert "stages to run" in must(project, *WRITE)
    must(project, *SNAKEMAKE, "evaluate@baseline")
    must(project, "bash", "-c", RECORD)
    assert "up to date" in must(project, "dvc", "status", "--with-deps", "evaluate@baseline")
    assert "Running stage" not in must(project, "dvc", "repro", "evaluate@baseline")


@pytest.mark.slow
def test_interrupts_and_kills_change_no_byte_and_leave_no_orphan(tmp_path: Path) -> None:
    settings = {"profiles__sample__budget__epoch_end": 40}
    by_dvc = made(tmp_path / "dvc", **settings)
    must(by_dvc, "dvc", "repro")
    project = made(tmp_path / "a b é", **settings)
    must(project, *WRITE)

    def training() -> list[psutil.Process]:
        return [process for process in at_work(project) if "stages.train" in process.cmdline()]

    def checkpoints() -> list[Path]:
        return [*project.glob(".mtbert/*/latest.json")]

    def begin(*options: str) -> subprocess.Popen[str]:
        snakemake = start(project, *SNAKEMAKE, *options, own_group=True)
        wait_until(lambda: training() and checkpoints())
        return snakemake

    def stopped(snakemake: subprocess.Popen[str]) -> None:
        snakemake.communicate()
        wait_until(lambda: not at_work(project), 20)
        assert not [*project.glob("**/.*.tmp")]

    interrupted = begin()
    os.killpg(interrupted.pid, signal.SIGINT)  # as Ctrl-C does
    stopped(interrupted)
    killed = begin()
    killed.kill()
    stopped(killed)
    must(project, *SNAKEMAKE, "--unlock")
    retrying = begin("--retries", "1")
    training()[0].kill()
    assert "Trying to restart job" in retrying.communicate()[0]
    assert retrying.returncode == 0
    assert outputs(project) == outputs(by_dvc)
    must(project, "bash", "-c", RECORD)
    assert "up to date" in must(project, "dvc", "status")
    edit(project, runs__dora_r4__adapter__rank=2)
    assert ": 5 stages to run" in must(project, *WRITE), "convert, train, evaluate, and the table and the report that show it"
