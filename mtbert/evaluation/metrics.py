"""The paper's metrics (section 5.2). Shapes: B examples. A metric that cannot be computed raises an error."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mtbert.errors import MtbertError
from mtbert.tasks.task import Task


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of the B predictions that equal their label.

    Raises:
        MtbertError: there are no examples, or a value is NaN.
    """
    labels, predictions = _pairs(labels, predictions, "accuracy", least=1)
    return float(np.mean(labels == predictions))


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Pearson's correlation of labels and predictions, -1 to 1.

    Raises:
        MtbertError: fewer than two examples, a NaN or infinity, or constant labels or predictions.
    """
    labels, predictions = _pairs(labels, predictions, "Pearson's r", least=2)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if not np.ptp(values):
            raise MtbertError(f"Pearson's r is undefined: all {len(values)} {name} are {values[0]:g}")
    return float(np.corrcoef(labels, predictions)[0, 1])  # numpy keeps it within -1 to 1


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"accuracy": accuracy, "pearson": pearson}


def task_metrics(metric: str, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float | int | None]:
    """A task's entry in metrics.json: {metric: value or None if undefined, "n": B}, and for accuracy "majority"."""
    try:
        value = METRICS[metric](labels, predictions)
    except MtbertError as error:  # a collapsed model predicts a constant, which has no correlation
        print(f"warning: {error}", file=sys.stderr)
        value = None
    return {metric: value, "n": len(labels)} | ({"majority": majority_share(labels)} if metric == "accuracy" else {})


def tracked(scores: Mapping[str, Any], tasks: Iterable[Task]) -> dict[str, float | None]:
    """A run's scores for `dvc metrics show`: overall, and each task's metric by its title; None where undefined, which DVC shows as "-".

    Args:
        scores: the entry of dev or test in metrics.json.
    """
    found = {"overall": scores.get("overall")}
    for task in tasks:
        found[task.title.lower()] = scores[task.name][metric_of(scores[task.name])] if task.name in scores else None
    return found


def metric_of(entry: Mapping[str, Any]) -> str:
    """The metric that a task's entry in metrics.json holds."""
    return next(metric for metric in METRICS if metric in entry)


def majority_share(labels: ArrayLike) -> float:
    """Accuracy of always predicting the most frequent of one or more labels, which a trained model must beat."""
    counts = np.unique(labels, return_counts=True)[1]
    return float(counts.max() / counts.sum())


def _pairs(labels: ArrayLike, predictions: ArrayLike, metric: str, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise MtbertError(f"{metric}: {first.shape} labels but {second.shape} predictions")
    if len(first) < least:
        raise MtbertError(f"{metric} needs {least} or more examples, found {len(first)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise MtbertError(f"{metric}: labels or predictions hold NaN or infinity")
    return first, second
