"""Experiments of DVC on the real graph: in temporary workspaces, in the queue, on a user's files, killed and started again."""

import csv
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import examples
from tests.project import commit, course_files, edit, few_runs, must, start, tiny_project

TARGET = "evaluate@dora_r4"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiny runs, and a user's course files that DVC tracks; in a path with a space."""
    folder = tiny_project(tmp_path_factory.mktemp("a b") / "project")
    few_runs(folder)
    edit(folder, profiles__course__budget__epoch_end=40)
    course_files(folder / "data/course")
    commit(folder, "start")
    must(folder, "dvc", "add", "--quiet", *map(str, sorted((folder / "data/course").glob("*.csv"))))
    commit(folder, "data")
    return folder


def score(project: Path, name: str) -> float:
    """The overall score of an experiment, as `dvc metrics diff` shows it."""
    output = must(project, "dvc", "metrics", "diff", "--all", "--json", "HEAD", name)
    shown = json.loads(output.splitlines()[-1])  # before it a note that the other runs have no metrics yet
    return float(shown["metrics/dora_r4.json"]["overall"]["new"])


def test_a_killed_experiment_on_the_user_s_files_goes_on_where_it_stopped(project: Path) -> None:
    experiment = ["dvc", "exp", "run", "--temp", "--name", "killed", "-S", "profile=course", TARGET]
    process = start(project, *experiment, MTBERT_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 300
    while not any('"step": 1' in path.read_text(encoding="utf-8") for path in project.glob(".mtbert/*/latest.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint in the project's own .mtbert"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (project / "notes").mkdir()
    (project / "notes/kept.txt").write_text("DVC removes folders without files\n", encoding="utf-8")
    output = must(project, "bash", "-c", f"cd notes && {shlex.join(['dvc', '--cd', '..', *experiment[1:]])}")
    assert "resuming dora_r4 at step" in output
    assert "data/raw: folder" in output or "Stage 'fetch' is cached" in output
    assert not list(project.glob(".mtbert/*/latest.json"))
    assert must(project, "git", "status", "--short").split() == ["??", "notes/"], "nothing changes here"


@pytest.mark.slow
def test_two_queued_experiments_train_the_same_thing_at_once(project: Path) -> None:
    must(project, "dvc", "repro", TARGET)
    commit(project, "results")
    for name, more in (("one", []), ("two", ["-S", "+tables.table1.mine=dora_r4"])):
        settings = ["-S", "+runs.dora_r4.heads.sts.clamp=false", "-S", "+runs.dora_r4.epoch_end=40", *more]
        must(project, "dvc", "exp", "run", "--queue", "--name", name, *settings, TARGET)
    must(project, "dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 300
    while (status := must(project, "dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status and time.monotonic() < deadline, status
        time.sleep(0.5)
    assert score(project, "one") == score(project, "two")
    table = must(project, "dvc", "exp", "show", "--only-changed", "--csv")
    shown = list(csv.DictReader(table[table.index("Experiment,") :].splitlines()))
    scores = {row["Experiment"]: row["overall"] for row in shown}
    assert float(scores["one"]) == float(scores["two"]) == score(project, "one")
    assert "runs.dora_r4.epoch_end" in must(project, "dvc", "exp", "diff", "HEAD", "one")
    must(project, "dvc", "plots", "diff", "HEAD", "one", "--targets", "plots/dora_r4.csv")
    page = (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert '"rev": "HEAD"' in page
    assert '"rev": "one"' in page
    must(project, "dvc", "queue", "stop")


@pytest.mark.slow
def test_the_guide_shows_what_its_commands_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["examples"])
    examples.main()
