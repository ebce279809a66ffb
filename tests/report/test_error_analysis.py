"""The error analysis of runs: its parts by kind of task, its sentences, and errors.json."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert.report.error_analysis import TaskErrors, analyse, to_json, to_plain
from mtbert.report.error_findings import UNTRAINED, agreement_finding, findings, noise_finding
from mtbert.report.error_panels import compared, panels
from mtbert.seal import seal
from mtbert.tabular import write_csv
from mtbert.tasks.paper import known_tasks

ROWS = 400
TOPIC = {"texts": ["headline"], "label": "topic", "kind": "classes", "classes": ["world", "sports", "arts"]}
TASKS = known_tasks({"topic": TOPIC})
NOISE = 6  # Quora's first labels are wrong
RUNS = ("good", "other", "third")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs whose errors on SST are planted: twice as many in sentences with a negation."""
    folder, truth = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    negated = truth.random(ROWS) < 0.3
    sentences = [f"{'a ' * int(truth.integers(1, 30))}{'not ' if no else ''}good film" for no in negated]
    drawn = {
        name: truth.integers(0, task.high, ROWS, endpoint=True) if task.kind != "score" else truth.uniform(0, 5, ROWS)
        for name, task in TASKS.items()
    }
    for number, run in enumerate(RUNS):
        rng = np.random.default_rng([number, 1])
        for name, task in TASKS.items():
            labels = drawn[name]
            if task.kind == "score":
                predicted = score = labels * 0.5 + rng.normal(0, 0.3, ROWS)
            else:
                wrong = rng.random(ROWS) < (np.where(negated, 0.5, 0.2) if name == "sst" else 0.2)
                if name == "topic":  # all runs err on the same examples
                    wrong = np.arange(ROWS) % 5 == 0
                if name == "quora":
                    wrong[:NOISE] = True
                predicted = np.where(wrong, np.where(labels == 0, 1, labels - 1), labels)
                score = np.full(ROWS, 0.95)
                if task.kind == "binary":
                    sure = np.where(np.arange(ROWS) < NOISE, 0.99, rng.uniform(0.6, 0.9, ROWS))
                    score = np.where(predicted == 1, sure, 1 - sure)
            texts = [sentences] * len(task.texts)
            names = [
                [task.text_of(value) for value in values] if task.classes else values for values in (labels, predicted)
            ]
            header = ["id", *(f"sentence{place + 1}" for place in range(len(texts))), "label", "prediction", "score"]
            rows = zip(map(str, range(ROWS)), *texts, *names, score, strict=True)
            write_csv(folder / run / f"examples/{name}-dev.csv", header, rows)
        seal(folder / run)
    return folder


def metrics(*runs: str) -> dict[str, Any]:
    return {
        run: {"dev": {name: {} for name in TASKS}, "training": {"tasks": ["sst", "quora", "topic"]}} for run in runs
    }


@pytest.fixture(scope="module")
def analysis(folder: Path) -> dict[str, TaskErrors]:
    return analyse(folder, metrics(*RUNS), TASKS.values())


def test_each_kind_of_task_has_its_parts(analysis: dict[str, TaskErrors]) -> None:
    parts = {
        name: {part for part, found in task.runs["good"]._asdict().items() if found is not None}
        for name, task in analysis.items()
    }
    shared = {"trained", "slices"}
    assert parts["sst"] == shared | {"calibration", "ordinal"}
    assert parts["topic"] == parts["quora"] == shared | {"calibration"}, "classes with names are not ordered"
    assert parts["sts"] == shared | {"line"}
    assert [name for name, task in analysis.items() if task.noise] == ["quora"]
    assert list(analysis["sst"].agreement) == [("good", "other"), ("good", "third"), ("other", "third")]


def test_a_run_alone_has_the_same_numbers(folder: Path, analysis: dict[str, TaskErrors]) -> None:
    alone = analyse(folder, metrics("other"), TASKS.values())
    for name, task in alone.items():
        assert task.runs["other"] == analysis[name].runs["other"]
        assert task.agreement == {} and task.noise is None


def test_the_planted_faults_are_found(analysis: dict[str, TaskErrors]) -> None:
    sst, quora, sts = (findings(analysis[name])["good"] for name in ("sst", "quora", "sts"))
    assert sst[0].startswith("Overconfident by ")
    assert re.search(r"the error rate is higher on examples with a negation, by 0\.\d{3} \(0\.", sst[-1])
    assert "100% (96% to 100%) of the errors are one class away." in sst[1]
    assert quora[-1].startswith("On no slice does the error rate differ significantly")
    assert sts[:2] == [UNTRAINED, sts[1]] and sts[1].endswith("predictions are too close together.")
    assert sts[2].startswith("Predictions are too low, on average by 1.")
    noise = analysis["quora"].noise
    assert noise is not None and [one.id for one in noise.candidates][:NOISE] == [str(row) for row in range(NOISE)]
    assert {one.runs for one in noise.candidates[:NOISE]} == {3}
    assert "an upper bound" in noise_finding(noise, ROWS)
    assert agreement_finding(analysis["topic"]).startswith("In 3 of 3 pairs of all runs, errors tend to be")


def test_the_file_is_json_without_texts(analysis: dict[str, TaskErrors]) -> None:
    text = to_json(to_plain(analysis, {name: findings(task) for name, task in analysis.items()}))
    found = json.loads(text)
    assert set(found) == {"level", "seed", "tasks"}
    sst = found["tasks"]["sst"]
    assert sst["agreement"][0]["runs"] == ["good", "other"]
    assert sst["runs"]["good"]["findings"][0].startswith("Overconfident")
    assert sst["runs"]["good"]["calibration"]["ece"].keys() == {"value", "low", "high"}
    assert "good film" not in text
    assert found["tasks"]["quora"]["noise"]["candidates"][0]["id"] == "0"


def test_the_panels_of_runs_and_what_compares_them(analysis: dict[str, TaskErrors]) -> None:
    ranges = {name: (task.low, task.high) for name, task in TASKS.items()}
    found = panels(analysis, ranges)
    assert [(panel.run, panel.title) for panel in found[:4]] == [
        *((run, "Sentiment") for run in RUNS),
        ("good", "Paraphrase"),
    ]
    for panel in found:
        for _, y, top, bottom, words in panel.chart.points:
            assert 0 <= top <= y <= bottom <= 150 and "examples" in words
    shown = compared(analysis, ["good", "third", "absent"])
    assert [part.title for part in shown] == [
        "Sentiment",
        "Paraphrase",
        "Paraphrase: labels that the runs contradict",
        "STS",
        "topic",
    ]
    assert [column.name for column in shown[0].table.columns] == ["", "good"]
