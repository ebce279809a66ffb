"""Distances between classes, beside scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from mtbert.evaluation.ordinal import ordinal
from mtbert.evaluation.resampling import draws, with_data


def test_distances_and_kappa_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(5, 500, p=[0.1, 0.3, 0.2, 0.3, 0.1])
    predictions = (labels + rng.integers(-1, 3, 500)).clip(0, 4)
    found = ordinal(labels, predictions, 5, with_data(draws(500, 300, rng)))
    assert found.kappa.value == pytest.approx(cohen_kappa_score(labels, predictions, weights="quadratic"))
    assert found.mae.value == pytest.approx(mean_absolute_error(labels, predictions))
    assert found.kappa.low < found.kappa.value < found.kappa.high
    distance = np.abs(labels - predictions)
    assert found.distances == [(distance == step).mean() for step in range(5)]
    assert found.within_one.value == (distance <= 1).mean()
    assert found.near is not None and found.near.value == (distance[distance > 0] == 1).mean()
    majority = np.bincount(labels).argmax()
    assert found.majority_mae == pytest.approx(mean_absolute_error(labels, np.full(500, majority)))
    assert found.majority_within_one == (np.abs(labels - majority) <= 1).mean()


def test_a_constant_prediction_and_no_errors() -> None:
    labels = np.array([0, 1, 2, 2])
    drawn = with_data(draws(4, 50, np.random.default_rng(0)))
    assert ordinal(labels, np.full(4, 2), 3, drawn).kappa.value == pytest.approx(0)
    right = ordinal(labels, labels, 3, drawn)
    assert right.near is None and right.kappa.value == 1
    assert np.isnan(ordinal(np.zeros(4), np.zeros(4), 3, drawn).kappa.value)
