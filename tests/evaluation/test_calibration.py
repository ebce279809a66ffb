"""Calibration: a case by hand, scikit-learn's bins, and by simulation: false alarms, power and coverage."""

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.calibration import calibration_curve

from mtbert.evaluation.calibration import BINS, Calibration, calibration, calibration_line
from mtbert.evaluation.resampling import draws, with_data


def drawn(rows: int, resamples: int = 200, seed: int = 0) -> np.ndarray:
    return with_data(draws(rows, resamples, np.random.default_rng(seed)))


def calibrated(confidence: np.ndarray, right: np.ndarray, seed: int = 0) -> Calibration:
    return calibration(confidence, right, drawn(len(right), seed=seed), np.random.default_rng([seed, 1]))


def test_a_case_by_hand() -> None:
    """Two bins: confidence 0.6 and right on 8 of 10, confidence 0.9 and right on 5 of 10."""
    right = np.array([1] * 8 + [0] * 2 + [1] * 5 + [0] * 5, dtype=bool)
    found = calibrated(np.repeat([0.6, 0.9], 10), right)
    assert found.ece.value == pytest.approx(0.5 * 0.2 + 0.5 * 0.4)
    assert found.excess.value == pytest.approx(0.75 - 0.65)
    assert found.brier.value == pytest.approx((8 * 0.4**2 + 2 * 0.6**2 + 5 * 0.1**2 + 5 * 0.9**2) / 20)
    assert [(part.examples, part.predicted, part.observed.value) for part in found.bins] == [
        (10, pytest.approx(0.6), 0.8),
        (10, pytest.approx(0.9), 0.5),
    ]


def test_the_bins_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1, 1000)
    right = rng.random(1000) < confidence**2
    bins = calibrated(confidence, right).bins
    observed, predicted = calibration_curve(right, confidence, n_bins=BINS, strategy="quantile")
    np.testing.assert_allclose([part.observed.value for part in bins], observed)
    np.testing.assert_allclose([part.predicted for part in bins], predicted)


def test_only_miscalibration_is_found_and_intervals_cover_it() -> None:
    alarms, found, covered = 0, 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.4, 0.99, 600)
        good = calibrated(confidence, rng.random(600) < confidence, seed)
        alarms += good.ece.value > good.chance_high
        assert good.ece.low == 0 or good.ece.value > good.chance_high
        over = calibrated(confidence, rng.random(600) < confidence - 0.12, seed)
        found += over.ece.value > over.chance_high
        covered += over.ece.low <= 0.12 <= over.ece.high
    assert alarms <= 8, "5% of 60 are expected; 9 or more have a probability below 0.5%"
    assert found >= 55
    assert covered >= 50
    assert good.ece.low == 0 < good.chance < good.chance_high


def test_few_examples_and_constant_predictions() -> None:
    found = calibrated(np.array([0.5, 0.7]), np.array([True, True]))
    assert len(found.bins) == 1 and found.accuracy == 1
    line = calibration_line(np.array([1.0, 2.0, 4.0]), np.full(3, 2.0), drawn(3))
    assert np.isnan(line.slope.value) and line.excess.value == pytest.approx(-1 / 3)


def test_the_line_is_scipys() -> None:
    rng = np.random.default_rng(2)
    predictions = rng.uniform(0, 5, 300)
    labels = 1 + 0.5 * predictions + rng.normal(0, 0.5, 300)
    found = calibration_line(labels, predictions, drawn(300, 1000))
    theirs = linregress(predictions, labels)
    assert found.slope.value == pytest.approx(theirs.slope)
    assert found.slope.high - found.slope.low == pytest.approx(2 * 1.96 * theirs.stderr, rel=0.15)
    assert found.excess.value == pytest.approx(predictions.mean() - labels.mean())
    assert found.spread == pytest.approx(predictions.std() / np.ptp(labels))
    assert sum(part.examples for part in found.bins) == 300


def test_the_order_of_the_examples_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    confidence, right, resamples = rng.uniform(0.4, 1, 60), rng.random(60) < 0.5, drawn(60)
    order = rng.permutation(60)
    first = calibration(confidence, right, resamples, np.random.default_rng(0))
    second = calibration(confidence[order], right[order], resamples[:, order], np.random.default_rng(0))
    assert second.ece == pytest.approx(first.ece) and second.bins == first.bins
