"""Confusions, mistakes and residuals."""

import numpy as np
from sklearn.metrics import confusion_matrix

from mtbert.evaluation.analysis import Mistake, confusion, mistakes, normalised, residuals


def test_confusion_equals_sklearns() -> None:
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    assert (confusion(labels, predictions, 5) == confusion_matrix(labels, predictions, labels=range(5))).all()


def test_rows_sum_to_one_and_absent_labels_are_nan() -> None:
    shares = normalised(np.array([[3, 1], [0, 0]]))
    assert shares[0].tolist() == [0.75, 0.25]
    assert np.isnan(shares[1]).all()


def test_mistakes_are_sorted_by_confidence() -> None:
    found = mistakes(np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1]), np.array([0.7, 0.1, 0.9, 0.8]))
    assert [(mistake.row, mistake.kind) for mistake in found] == [(1, "FN"), (3, "FP"), (0, "FP")]
    assert found[0] == Mistake(1, "FN", 0.9)


def test_over_prediction_is_negative() -> None:
    assert residuals(np.array([1.0]), np.array([3.0])).tolist() == [-2.0]
