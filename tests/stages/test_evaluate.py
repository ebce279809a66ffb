"""evaluate: scores where there are labels, leaderboard files in any case."""

import csv
import json
from pathlib import Path

import pytest

from mtbert.data.tasks import TASKS
from mtbert.evaluation.metrics import accuracy
from mtbert.seal import seal
from stages import evaluate


def test_an_unlabelled_test_split_has_leaderboard_files_and_no_score(project: Path) -> None:
    (project / "data/prepared/quora/test/labels.npy").unlink()
    seal(project / "data/prepared")
    evaluate.main("baseline")
    results = project / "results/baseline"
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["dev"]) == {"sst", "quora", "sts", "overall"}
    assert set(metrics["test"]) == {"sst", "sts"}, "no Quora score, and so no overall score"
    (file,) = (results / "predictions").glob("*para*test*.csv")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == TASKS["quora"].leaderboard_header
    assert len(lines) == 1 + 8


def test_the_scores_are_those_of_the_examples_beside_them(project: Path) -> None:
    evaluate.main("baseline")
    results = project / "results/baseline"
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    with (results / "examples/sst-dev.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = accuracy([float(row["label"]) for row in rows], [float(row["prediction"]) for row in rows])
    assert metrics["dev"]["sst"]["accuracy"] == pytest.approx(found)
    assert (results / "record.json").read_bytes() == (project / "models/baseline/record.json").read_bytes()


def test_a_split_that_is_not_there_is_passed_over(project: Path) -> None:
    (project / "data/prepared/quora/test").rename(project / "elsewhere")
    seal(project / "data/prepared")
    evaluate.main("baseline")
    assert not list((project / "results/baseline").rglob("*para*test*"))
