"""Agreement of models on the same examples: whether they predict the same, and whether they err on the same examples.

Shapes: M models, B examples, R resamples, the first of which is the examples themselves (`resampling.with_data`).
"""

from typing import NamedTuple

import numpy as np

from mtbert.evaluation.resampling import Measured, measured


class BothWrong(NamedTuple):
    """The share of examples on which two models are both wrong, and what it would be if they erred independently."""

    found: float
    independent: float


class Agreement(NamedTuple):
    """How two models agree.

    Attributes:
        predictions: Cohen's kappa of predicted labels, Pearson's r of predicted scores.
        errors: the correlation of their errors, 0 if they err independently: of being wrong, or of signed errors of scores.
        same: the share of equal predictions; None for scores.
        both_wrong: None for scores.
    """

    predictions: Measured
    errors: Measured
    same: float | None
    both_wrong: BothWrong | None


def agreements(
    labels: np.ndarray, predictions: np.ndarray, draws: np.ndarray, *, scores: bool
) -> dict[tuple[int, int], Agreement]:
    """The agreement of each pair of models, by their places.

    Args:
        labels: (B,), of numbered classes or scores.
        predictions: (M, B).
        draws: (R, B).
        scores: whether labels are scores.
    """
    first, second = np.triu_indices(len(predictions), 1)
    errors = predictions - labels if scores else (predictions != labels).astype(float)
    together = _correlations(errors, first, second, draws)
    if scores:
        same, alike = [None] * len(first), _correlations(predictions, first, second, draws)
        wrong: list[BothWrong | None] = [None] * len(first)
    else:
        equal = predictions[first] == predictions[second]
        same, alike = equal.mean(1).tolist(), _kappas(predictions, equal, first, second, draws)
        rates = errors.mean(1)
        wrong = [
            BothWrong(float((errors[a] * errors[b]).mean()), float(rates[a] * rates[b]))
            for a, b in zip(first, second, strict=True)
        ]
    return {
        pair: Agreement(measured(of_predictions), measured(of_errors), equally, both)
        for pair, of_predictions, of_errors, equally, both in zip(
            zip(first.tolist(), second.tolist(), strict=True), alike.T, together.T, same, wrong, strict=True
        )
    }


def _kappas(
    predictions: np.ndarray, equal: np.ndarray, first: np.ndarray, second: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """Cohen's kappa of each of P pairs on each resample, (R, P); NaN where both models predict one same label only."""
    examples = predictions.shape[1]
    observed = draws @ equal.T / examples
    expected = np.zeros_like(observed)
    for label in np.unique(predictions):
        rates = draws @ (predictions == label).T / examples
        expected += rates[:, first] * rates[:, second]
    return np.divide(observed - expected, 1 - expected, out=np.full(observed.shape, np.nan), where=expected < 1 - 1e-12)


def _correlations(values: np.ndarray, first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Pearson's r of each of P pairs of rows (M, B) on each resample, (R, P); NaN where a row is constant."""
    centred = values - values.mean(1, keepdims=True)
    examples = values.shape[1]
    means, squares = draws @ centred.T / examples, draws @ (centred * centred).T / examples
    products = draws @ (centred[first] * centred[second]).T / examples
    variances = squares - means * means
    spreads = np.sqrt(np.where(variances > 1e-10 * squares, variances, np.nan))
    covariances = products - means[:, first] * means[:, second]
    return np.asarray(covariances / (spreads[:, first] * spreads[:, second])).clip(-1, 1)
