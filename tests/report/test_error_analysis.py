"""The error analysis of runs: its parts by kind of task, its sentences, and errors.json."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert.evaluation.resampling import Measured
from mtbert.report.error_analysis import TaskErrors, analyse, to_json, to_plain
from mtbert.report.error_findings import UNTRAINED, agreement_finding, findings, noise_finding
from mtbert.report.error_panels import agreement, contradicted, panels
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
    assert re.fullmatch(r"Predictions are too low by 1\.\d+ \(.*\) on average\.", sts[2])
    noise = analysis["quora"].noise
    assert noise is not None and [one.id for one in noise.candidates][:NOISE] == [str(row) for row in range(NOISE)]
    assert {one.runs for one in noise.candidates[:NOISE]} == {3}
    assert "too optimistic" in (sentence := noise_finding(noise, ROWS)) and "nan" not in sentence
    assert "above 0 in 3 of 3 pairs of runs trained on the task" in agreement_finding(analysis["topic"])
    assert agreement_finding(analysis["sts"]) == "", "no run was trained on it"


@pytest.mark.parametrize(
    ("excess", "ece", "start"),
    [
        ((-0.1, -0.17, -0.04), 0.05, "Underconfident by 10.0 percentage points (4.0 to 17.0). "),
        ((-0.01, -0.03, 0.01), 0.05, "No miscalibration found, and not clearly too sure or too unsure: "),
        (
            (-0.01, -0.03, 0.01),
            0.2,
            "Miscalibrated, but not clearly too sure or too unsure: confidence minus accuracy is −1.0 ",
        ),
    ],
)
def test_the_gap_decides_before_the_ece(
    analysis: dict[str, TaskErrors], excess: tuple[float, float, float], ece: float, start: str
) -> None:
    task = analysis["sst"]
    calibration = task.runs["good"].calibration
    assert calibration is not None
    found = calibration._replace(excess=Measured(*excess), ece=Measured(ece, 0.0, ece), chance_high=0.1)
    run = task.runs["good"]._replace(calibration=found)
    assert findings(task._replace(runs={"good": run}))["good"][0].startswith(start)


@pytest.mark.parametrize(
    ("slope", "spread", "sentence"),
    [
        ((229.0, 180.0, 270.0), 0.001, "Predictions hardly differ: "),
        ((-0.5, -0.8, -0.2), 0.3, "labels fall where predictions rise"),
        ((0.1, -0.2, 0.4), 0.3, "the interval includes 0"),
    ],
)
def test_a_slope_is_read_only_where_predictions_differ(
    analysis: dict[str, TaskErrors], slope: tuple[float, float, float], spread: float, sentence: str
) -> None:
    task = analysis["sts"]
    line = task.runs["good"].line
    assert line is not None
    run = task.runs["good"]._replace(line=line._replace(slope=Measured(*slope), spread=spread), trained=True)
    assert sentence in findings(task._replace(runs={"good": run}))["good"][0]


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
    shown = agreement(analysis, ["good", "third", "absent"])
    assert [part.title for part in shown] == ["Sentiment", "Paraphrase", "STS", "topic"]
    assert [part.title for part in contradicted(analysis)] == ["Paraphrase"]
    assert [column.name for column in shown[0].table.columns] == ["", "good"]
