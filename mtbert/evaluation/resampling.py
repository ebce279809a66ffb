"""Bootstrap intervals and paired tests of the metrics (section 5.2): what a dev score says about other examples.

Examples are drawn with replacement, the same ones for every model, so that two models are compared on equal examples. All
randomness is the given generator's. Shapes: B examples, M models, R resamples.
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, chi2, norm, t

LEVEL = 0.95  # of the intervals
POWER = 0.8  # of the smallest detectable difference
BLOCK = 2**21  # examples drawn at a time, which bounds memory


class Measured(NamedTuple):
    """A quantity and its 95% interval."""

    value: float
    low: float
    high: float


def resampled(
    metric: str, labels: np.ndarray, predictions: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """The metric of each model on each resample, (R, M); NaN where Pearson's r is undefined.

    Args:
        metric: a key of `mtbert.evaluation.metrics.METRICS`.
        labels: (B,).
        predictions: (M, B).
    """
    if metric == "accuracy":
        return _sums((predictions == labels).T, resamples, rng) / len(labels)
    x, y = predictions.T - predictions.mean(1), (labels - labels.mean())[:, None]
    sums = _sums(np.concatenate([y, y * y, x, x * x, x * y], axis=1), resamples, rng) / len(labels)
    mean_y, square_y, mean_x, square_x, product = np.split(
        sums, [1, 2, 2 + len(predictions), 2 + 2 * len(predictions)], axis=1
    )
    spread_x, spread_y = _spread(mean_x, square_x), _spread(mean_y, square_y)
    return np.asarray((product - mean_x * mean_y) / np.sqrt(spread_x * spread_y)).clip(-1, 1)


def draws(rows: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of the B examples is in each resample, (R, B)."""
    drawn = rng.integers(0, rows, (resamples, rows)) + rows * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * rows).reshape(resamples, rows)


def with_data(drawn: np.ndarray) -> np.ndarray:
    """The resamples (R, B) below the examples themselves, each once: then the first value of a statistic is that of the data."""
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def measured(samples: np.ndarray) -> Measured:
    """A quantity from its value on the data and on each resample, (1 + R,); all NaN where it is undefined on the data."""
    if np.isnan(samples[0]):
        return Measured(np.nan, np.nan, np.nan)
    return Measured(float(samples[0]), *interval(samples[1:]))


def mean(values: np.ndarray) -> Measured:
    """The mean of values (B,) with Student's interval; of a single value there is none."""
    value = float(values.mean())
    if len(values) < 2:
        return Measured(value, np.nan, np.nan)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Measured(value, value - half, value + half)


def deviation(sd: float, count: int) -> Measured:
    """The standard deviation of two or more normal values with its chi-square interval."""
    low, high = (sd * sqrt((count - 1) / float(chi2.ppf(p, count - 1))) for p in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Measured(sd, low, high)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The bootstrap's percentile interval of samples (R,); those that are NaN are left out."""
    low, high = np.nanquantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson(hits: int, examples: int) -> Measured:
    """The share of hits with Wilson's interval, which is sound for few examples and for shares near 0 and 1."""
    share, z = hits / examples, float(norm.ppf((1 + LEVEL) / 2))  # scipy's binomtest would compute a p as well, slowly
    middle, half = share + z * z / (2 * examples), z * sqrt(share * (1 - share) / examples + (z / (2 * examples)) ** 2)
    scale = 1 + z * z / examples
    return Measured(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p of a true difference of zero, from resamples (R,): twice the share on the rarer side of zero.

    This is the level at which the percentile interval begins to include zero. If all resamples are on one side, it is at most
    2 / (R + 1), and the normal tail is taken, since Holm's correction of many pairs needs smaller ones.
    """
    found = differences[~np.isnan(differences)]
    rarer = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (rarer + 1) / (len(found) + 1))
    if rarer or not found.std():
        return float(p)
    return float(min(p, 2 * norm.sf(abs(found.mean()) / found.std(ddof=1))))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test that two models are right equally often.

    Args:
        first, second: whether each is right on each example, (B,).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for testing several at once, in the same order."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = largest
    return adjusted


def detectable(error: float) -> float:
    """The smallest true difference found significant with probability `POWER`, from the standard error of a difference."""
    return float((norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER)) * error)


def _sums(columns: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The sum of each column (B, K) over each resample, (R, K)."""
    rows, parts = len(columns), []
    for start in range(0, resamples, step := max(1, BLOCK // rows)):
        count = min(step, resamples - start)
        parts.append(draws(rows, count, rng) @ columns.astype(np.float64))
    return np.concatenate(parts)


def _spread(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """The variance, NaN where the values are equal up to rounding."""
    variance = square - mean * mean
    return np.where(variance > 1e-10 * square, variance, np.nan)
