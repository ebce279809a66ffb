"""The analyses of section 6.1: confusion of sentiments, mistaken pairs, residuals of similarities."""

from typing import NamedTuple

import numpy as np


class Mistake(NamedTuple):
    """A wrongly classified pair: its row, `FP` or `FN`, and the probability of the predicted label."""

    row: int
    kind: str
    confidence: float


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C) of true labels (rows) by predictions (columns)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels.astype(int), predictions.astype(int)), 1)
    return counts


def normalised(counts: np.ndarray) -> np.ndarray:
    """Counts divided by their row's sum (Figure 1); NaN in the row of a label that does not occur."""
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def mistakes(labels: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray) -> list[Mistake]:
    """The mistaken pairs, most confident first; ties keep the data's order.

    Args:
        labels, predictions: 0 or 1, (B,).
        probabilities: the model's probability that the pair is a duplicate, (B,).
    """
    found = [
        Mistake(int(row), "FP", float(probabilities[row]))
        if predictions[row] == 1
        else Mistake(int(row), "FN", float(1 - probabilities[row]))
        for row in np.flatnonzero(labels != predictions)
    ]
    return sorted(found, key=lambda mistake: -mistake.confidence)


def residuals(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """True minus predicted similarity (Figure 4): negative where the model over-predicts."""
    return labels - predictions
