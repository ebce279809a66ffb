"""Calibration: whether a model is right as often as it is sure (Guo et al., 2017, "On calibration of modern neural networks").

Shapes: B examples, R resamples, the first of which is the examples themselves (`resampling.with_data`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtbert.evaluation.resampling import LEVEL, Measured, interval, mean, measured, wilson

BINS = 10
LEAST = 10  # examples in a bin


class Bin(NamedTuple):
    """Examples with neighbouring predictions: how many, their mean prediction, and what was observed."""

    examples: int
    predicted: float
    observed: Measured


class Calibration(NamedTuple):
    """The confidence in the predicted label, compared with how often it is right.

    Attributes:
        confidence, accuracy: means over all examples.
        excess: confidence minus accuracy, above 0 for an overconfident model.
        ece: the expected calibration error, over bins of equal numbers of examples.
        chance, chance_high: the mean ECE of a perfectly calibrated model with these confidences on as many examples, and its 95%
            quantile. It is not 0: a bin's accuracy varies by chance.
        brier: the mean of (confidence - 1)² where the model is right and of confidence² where it is wrong.
        bins: of the reliability diagram, by rising confidence.
    """

    confidence: float
    accuracy: float
    excess: Measured
    ece: Measured
    chance: float
    chance_high: float
    brier: Measured
    bins: Sequence[Bin]


class Line(NamedTuple):
    """Predicted scores, compared with the labels.

    Attributes:
        slope: of the labels' least-squares line over the predictions; 1 if calibrated, below 1 if predictions are too far apart.
        spread: the predictions' standard deviation, as a share of the labels' range; NaN if all labels are equal.
        excess: the mean prediction minus the mean label.
        bins: the mean label by rising prediction.
    """

    slope: Measured
    spread: float
    excess: Measured
    bins: Sequence[Bin]


def calibration(confidence: np.ndarray, right: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> Calibration:
    """Calibration of the predicted labels.

    The ECE's percentile interval would be too high, since resampling adds noise to noise. It is reflected about the estimate, and begins
    at 0 where the ECE is no larger than chance makes it.

    Args:
        confidence: the probability of the predicted label, (B,).
        right: whether it is the true one, (B,).
        draws: (R, B).
        rng: draws the labels of the perfectly calibrated model.
    """
    order = np.argsort(confidence, kind="stable")
    sure, hits, draws = confidence[order], right[order].astype(float), draws[:, order]
    starts = _starts(len(order))

    def ece(gaps: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(1) / len(order))

    found = ece(draws * (sure - hits))
    chance = ece(sure - (rng.random(draws[1:].shape) < sure))
    value, (low, high), most = float(found[0]), interval(found[1:]), float(np.quantile(chance, LEVEL))
    bins = [
        Bin(len(part), float(part.mean()), wilson(int(of.sum()), len(part)))
        for part, of in zip(np.split(sure, starts[1:]), np.split(hits, starts[1:]), strict=True)
    ]
    return Calibration(
        float(sure.mean()),
        float(hits.mean()),
        measured(draws @ (sure - hits) / len(order)),
        Measured(value, max(0.0, 2 * value - high) if value > most else 0.0, max(value, 2 * value - low)),
        float(chance.mean()),
        most,
        measured(draws @ (sure - hits) ** 2 / len(order)),
        bins,
    )


def calibration_line(labels: np.ndarray, predictions: np.ndarray, draws: np.ndarray) -> Line:
    """Calibration of predicted scores.

    Args:
        labels, predictions: (B,).
        draws: (R, B).
    """
    x, y = predictions - predictions.mean(), labels - labels.mean()
    mean_x, mean_y, square, product = (draws @ np.stack([x, y, x * x, x * y], axis=1) / len(x)).T
    spread = square - mean_x * mean_x
    slopes = np.divide(product - mean_x * mean_y, spread, out=np.full(len(spread), np.nan), where=spread > 1e-12)
    order = np.argsort(predictions, kind="stable")
    starts = _starts(len(order))[1:]
    bins = [
        Bin(len(part), float(part.mean()), mean(of))
        for part, of in zip(np.split(predictions[order], starts), np.split(labels[order], starts), strict=True)
    ]
    apart = float(x.std() / np.ptp(labels)) if np.ptp(labels) else np.nan
    return Line(measured(slopes), apart, measured(draws @ (predictions - labels) / len(x)), bins)


def _starts(examples: int) -> np.ndarray:
    """Where bins of equal numbers of sorted examples begin."""
    bins = min(BINS, max(1, examples // LEAST))
    return examples * np.arange(bins) // bins
