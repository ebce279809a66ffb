"""Agreement of models, beside scikit-learn and numpy, and with errors that are independent or shared."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from mtbert.evaluation.agreement import agreements
from mtbert.evaluation.resampling import draws, with_data

ROWS = 400


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return with_data(draws(ROWS, 300, np.random.default_rng(0)))


def guesses(rng: np.random.Generator, labels: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    return np.where(wrong, (labels + rng.integers(1, 4, ROWS)) % 5, labels)


def test_labels(drawn: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    labels, shared, alone = rng.integers(0, 5, ROWS), rng.random(ROWS) < 0.4, rng.random(ROWS) < 0.4
    predictions = np.stack([guesses(rng, labels, wrong) for wrong in (shared, shared, alone)])
    found = agreements(labels, predictions, drawn, scores=False)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    for (first, second), how in found.items():
        assert how.predictions.value == pytest.approx(cohen_kappa_score(predictions[first], predictions[second]))
        assert how.predictions.low < how.predictions.value < how.predictions.high
        assert how.same == (predictions[first] == predictions[second]).mean()
    assert found[0, 1].errors == pytest.approx((1, 1, 1))
    assert found[0, 2].errors.low < 0 < found[0, 2].errors.high
    assert found[0, 1].both_wrong == pytest.approx((shared.mean(), shared.mean() ** 2))


def test_scores(drawn: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    labels, shared = rng.uniform(0, 5, ROWS), rng.normal(size=ROWS)
    predictions = labels + np.stack([shared, shared + rng.normal(0, 0.5, ROWS), rng.normal(size=ROWS)])
    found = agreements(labels, predictions, drawn, scores=True)
    assert found[0, 1].predictions.value == pytest.approx(np.corrcoef(predictions[:2])[0, 1])
    assert found[0, 1].errors.value == pytest.approx(np.corrcoef(predictions[:2] - labels)[0, 1])
    assert found[0, 1].errors.low > 0.8 and found[0, 2].errors.low < 0 < found[0, 2].errors.high
    assert found[0, 1].same is None and found[0, 1].both_wrong is None


def test_constant_predictions_and_a_single_model(drawn: np.ndarray) -> None:
    labels, ones = np.arange(ROWS) % 2, np.ones((2, ROWS))
    (same,) = agreements(labels, ones, drawn, scores=False).values()
    assert np.isnan(same.predictions.value) and same.errors.value == pytest.approx(1)
    (right,) = agreements(labels, np.stack([labels, labels]), drawn, scores=False).values()
    assert right.predictions.value == 1 and np.isnan(right.errors.value)
    (level,) = agreements(labels, ones, drawn, scores=True).values()
    assert np.isnan(level.predictions.value)
    assert agreements(labels, ones[:1], drawn, scores=False) == {}
