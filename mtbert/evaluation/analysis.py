"""The analyses of section 6.1: which sentiments are confused, which pairs are mistaken, how far similarities are off."""

from typing import NamedTuple

import numpy as np


class Mistake(NamedTuple):
    """A pair that the model got wrong: its row, `FP` or `FN`, and the model's probability of what it predicted."""

    row: int
    kind: str
    confidence: float


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C): row = true label, column = prediction."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels.astype(int), predictions.astype(int)), 1)
    return counts


def normalised(counts: np.ndarray) -> np.ndarray:
    """Each row's shares (Figure 1); a label that does not occur has NaN."""
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def mistakes(labels: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray) -> list[Mistake]:
    """Mistaken pairs, the most confident first; ties keep the data's order.

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
