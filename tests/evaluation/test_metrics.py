"""The metrics against the paper's own tables and the reference libraries."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import accuracy, majority_share, pearson, task_metrics, tracked
from mtbert.report.paper import TABLE_1
from mtbert.tasks.paper import TASKS, known_tasks, overall


@pytest.mark.parametrize(("title", "computed"), [("Baseline", 0.4988), ("Key Update 1", 0.6700), ("Key Update 2", 0.6842), ("Key Update 3", 0.7172), ("Best Performance", 0.7788), ("Most Efficient", 0.7573), ("Test Leaderboard", 0.7782)])  # fmt: skip
def test_overall_of_the_papers_rows(title: str, computed: float) -> None:
    printed = next(printed for name, _, printed in TABLE_1.values() if name == title)
    found = overall(printed.sst, printed.quora, printed.sts)
    assert found == pytest.approx(computed, abs=5e-5)
    misprinted = title in ("Baseline", "Key Update 2")
    assert (abs(found - printed.overall) > 0.003) == misprinted


def test_against_the_reference_libraries() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        classes, guesses = rng.integers(0, 5, 50), rng.integers(0, 5, 50)
        assert accuracy(classes, guesses) == accuracy_score(classes, guesses)
        x, y = rng.normal(size=40), rng.normal(size=40)
        assert pearson(x, y) == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([1.0, 2.0], [3.0, 3.0], "all 2 predictions are 3"),
        ([1.0, 1.0], [3.0, 4.0], "all 2 labels are 1"),
        ([1.0], [2.0], "needs 2 or more examples"),
        ([1.0, 2.0], [np.nan, 1.0], "NaN"),
        ([np.inf, 2.0], [3.0, 1.0], "NaN or infinity"),
        ([1.0, 2.0], [1.0], r"\(2,\) labels but \(1,\)"),
        ([[1.0, 2.0]], [[2.0, 1.0]], r"\(1, 2\) labels but \(1, 2\)"),
    ],
)
def test_what_cannot_be_computed_raises(labels: list[float], predictions: list[float], message: str) -> None:
    with pytest.raises(MtbertError, match=message):
        pearson(labels, predictions)


def test_two_examples_correlate() -> None:
    assert pearson([1, 2], [5, 4]) == pytest.approx(-1)


def test_accuracy_of_nothing_raises() -> None:
    with pytest.raises(MtbertError, match="accuracy needs 1 or more examples"):
        accuracy([], [])


def test_majority() -> None:
    assert majority_share([0, 1, 1, 2]) == 0.5


def test_overall_and_a_number_for_each_task_are_tracked() -> None:
    dev: dict[str, Any] = {"sst": {"accuracy": 0.4, "n": 5}, "quora": {"accuracy": 0.6}, "sts": {"pearson": 0.5}}
    four = {"overall": 0.7, "sentiment": 0.4, "paraphrase": 0.6, "sts": 0.5}
    assert tracked(dev | {"overall": 0.7}, TASKS.values()) == four
    undefined = dev | {"sts": {"pearson": None}}
    assert tracked(undefined, TASKS.values()) == four | {"overall": None, "sts": None}
    own = known_tasks({"spam": {"texts": ["text"], "label": "spam", "kind": "binary"}}).values()
    assert tracked(dev | {"overall": 0.7, "spam": {"accuracy": 0.9}}, own) == four | {"spam": 0.9}


def test_task_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    labels, values = np.array([0.0, 1, 1]), np.array([1.0, 1, 1])
    assert task_metrics("accuracy", labels, values) == {"accuracy": 2 / 3, "n": 3, "majority": 2 / 3}
    assert task_metrics("pearson", labels, values) == {"pearson": None, "n": 3}
    assert "all 3 predictions are 1" in capsys.readouterr().err
