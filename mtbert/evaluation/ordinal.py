"""Errors of ordered classes: how far a prediction is from the true class.

Shapes: B examples, R resamples, the first of which is the examples themselves (`resampling.with_data`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtbert.evaluation.resampling import Measured, measured, wilson


class Ordinal(NamedTuple):
    """Distances between predicted and true class.

    Attributes:
        distances: the share of examples at each distance, from 0.
        within_one: the share at a distance of 0 or 1.
        near: of the errors, the share at a distance of 1; None without errors.
        mae: the mean distance.
        kappa: Cohen's kappa with quadratic weights; 0 for a constant prediction.
        majority_within_one, majority_mae: of always predicting the most frequent class.
    """

    distances: Sequence[float]
    within_one: Measured
    near: Measured | None
    mae: Measured
    kappa: Measured
    majority_within_one: float
    majority_mae: float


def ordinal(labels: np.ndarray, predictions: np.ndarray, classes: int, draws: np.ndarray) -> Ordinal:
    """The distances of predictions.

    Args:
        labels, predictions: the numbers of classes, (B,).
        classes: how many there are.
        draws: (R, B).
    """
    labels, predictions = labels.astype(int), predictions.astype(int)
    distance = np.abs(predictions - labels)
    counts = np.bincount(distance, minlength=classes)
    wrong = len(labels) - int(counts[0])
    majority = np.abs(np.bincount(labels).argmax() - labels)
    return Ordinal(
        (counts / len(labels)).tolist(),
        wilson(int(counts[:2].sum()), len(labels)),
        wilson(int(counts[1]), wrong) if wrong else None,
        measured(draws @ distance / len(labels)),
        measured(_quadratic_kappa(labels, predictions, draws)),
        float((majority <= 1).mean()),
        float(majority.mean()),
    )


def _quadratic_kappa(labels: np.ndarray, predictions: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights on each resample, (R,): 1 minus the mean squared distance over that of shuffled predictions."""
    columns = np.stack([labels, predictions, labels**2 + predictions**2, (labels - predictions) ** 2], axis=1)
    label, prediction, squares, apart = (draws @ columns / len(labels)).T
    shuffled = squares - 2 * label * prediction
    return 1 - np.divide(apart, shuffled, out=np.full(len(apart), np.nan), where=shuffled > 1e-12)
