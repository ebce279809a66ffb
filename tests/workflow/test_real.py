"""The real stages on Snakemake: the bytes of `dvc repro`, though stages are killed and Snakemake is interrupted or killed."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from mtbert.workflow.snakemake import RECORD, SNAKEFILE
from tests.processes import at_work, wait_until
from tests.project import commit, edit, keep_runs, must, start, tiny_project

SNAKEMAKE = ("snakemake", "--snakefile", str(SNAKEFILE), "--cores", "2", "--keep-going")
WRITE = ("python", "-m", "mtbert", "workflow", "snakemake")
LEFT_OUT = {".gitignore", "index.html", "provenance.json"}
OUTS = ("data", "models", "plots", "results", "metrics", "reports")


def made(folder: Path, *runs: str, **settings: object) -> Path:
    project = tiny_project(folder, **settings)
    keep_runs(project, *runs)
    commit(project, "tiny")
    return project


def outputs(project: Path) -> dict[str, bytes]:
    """Every file that the stages wrote, except the two that say when and from which commit."""
    files = (path for folder in OUTS for path in (project / folder).rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in files if path.name not in LEFT_OUT}


def test_a_run_that_dvc_then_calls_up_to_date(tmp_path: Path) -> None:
    project = made(tmp_path / "a b é", "baseline")
    assert "stages to run" in must(project, *WRITE)
    must(project, *SNAKEMAKE, "evaluate@baseline")
    must(project, "bash", "-c", RECORD)
    assert "up to date" in must(project, "dvc", "status", "--with-deps", "evaluate@baseline")


@pytest.mark.slow
def test_interrupts_and_kills_change_no_byte_and_leave_no_orphan(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    runs, settings = ("baseline", "dora_r4"), {"profiles__sample__budget__epoch_end": 20}
    by_dvc = made(tmp_path / "dvc", *runs, **settings)
    must(by_dvc, "dvc", "repro")
    project = made(tmp_path / "a b é", *runs, **settings)
    must(project, *WRITE)

    def begin(*options: str) -> subprocess.Popen[str]:
        snakemake = start(project, "setsid", *SNAKEMAKE, *options)  # a group of its own, as a shell gives it
        request.addfinalizer(snakemake.kill)
        wait_until(lambda: at_work(project, "stages.train") and [*project.glob(".mtbert/*/latest.json")], 120)
        return snakemake

    def stopped(snakemake: subprocess.Popen[str]) -> None:
        snakemake.communicate()
        wait_until(lambda: not at_work(project), 20)
        assert not (project / "build/workflow/done/report").exists()
        assert not [*project.glob("**/.*.tmp")]

    interrupted = begin()
    os.killpg(interrupted.pid, signal.SIGINT)  # as Ctrl-C does
    stopped(interrupted)
    killed = begin()
    killed.kill()
    stopped(killed)
    must(project, *SNAKEMAKE, "--unlock")
    retrying = begin("--retries", "1")
    at_work(project, "stages.train")[0].kill()
    assert "Trying to restart job" in retrying.communicate()[0]
    assert retrying.returncode == 0
    assert outputs(project) == outputs(by_dvc)
    must(project, "bash", "-c", RECORD)
    assert "up to date" in must(project, "dvc", "status")
    edit(project, runs__dora_r4__adapter__rank=2)
    must(project, *WRITE)
    stale = re.findall(r"name: '(\w+@(?:baseline|dora_r4))'", (project / SNAKEFILE).read_text("utf-8"))
    assert stale == [f"{stage}@dora_r4" for stage in ("convert", "train", "evaluate")]
