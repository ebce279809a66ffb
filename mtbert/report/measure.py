"""Compute the statistics of evaluated runs: bootstrap over the dev examples of each task, the same resamples for every run."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import metric_of
from mtbert.evaluation.resampling import bootstrap_p, interval, mcnemar, resampled
from mtbert.report import results
from mtbert.report.statistics import (
    OVERALL,
    RESAMPLES,
    SEED,
    UNDEFINED,
    Interval,
    OverSeeds,
    Paired,
    Statistics,
    read_statistics,
)
from mtbert.tasks.paper import METRIC_OF, overall


class _Score(NamedTuple):
    """A run's score: its value, its resamples (R,), and for an accuracy which of the B examples are right, (B,)."""

    value: float
    samples: np.ndarray
    right: np.ndarray | None = None


def measure(folder: Path, runs: Iterable[str], seeds: Mapping[str, Sequence[str]] | None = None) -> Statistics:
    """The statistics of runs. Those of a pair do not depend on what other runs there are.

    Args:
        folder: the results folder.
        seeds: for the first run, the others that differ from it in their seed alone.

    Raises:
        MtbertError: a run is not evaluated, or two were evaluated on different examples of a task.
    """
    dev = {run: results.metrics(folder, run)["dev"] for run in runs}
    known = {run: results.scores(found) for run, found in dev.items()}
    tasks = dict.fromkeys(name for found in known.values() for name in found if name != OVERALL)
    scores = {task: _scores(folder, dev, task) for task in tasks}
    scores[OVERALL] = {
        run: _Score(found[OVERALL], overall(*(scores[name][run].samples for name in METRIC_OF)))  # type: ignore[arg-type]
        for run, found in dev.items()
        if OVERALL in found and all(run in scores[name] for name in METRIC_OF)
    }
    values = {run: {name: _interval(scores[name].get(run)) for name in found} for run, found in known.items()}
    pairs = {
        (first, second): {
            name: _paired(found[first], found[second])
            for name, found in scores.items()
            if {first, second} <= found.keys()
        }
        for first, second in combinations(dev, 2)
    }
    over = {
        first: {
            name: _over_seeds([found[run] for run in (first, *others) if run in found])
            for name, found in scores.items()
        }
        for first, others in (seeds or {}).items()
    }
    return Statistics(values, pairs, over)


def current_statistics(path: Path, folder: Path, runs: Iterable[str]) -> Statistics:
    """Read statistics, and check that they were made from the present results of these runs.

    Args:
        folder: the results folder.

    Raises:
        MtbertError: a file is missing or damaged, or the statistics are of other results; the message names the stage to run.
    """
    found = read_statistics(path)
    for run in runs:
        values = results.scores(results.metrics(folder, run)["dev"])
        there = {name: score.value for name, score in found.values.get(run, {}).items()}
        if values.keys() != there.keys() or not all(
            value is None or isclose(value, values[name] or 0, rel_tol=1e-5, abs_tol=1e-9)
            for name, value in there.items()
        ):
            raise MtbertError(
                f"{path}: was made from other results than those of {run} here; run `dvc repro statistics`"
            )
    return found


def _scores(folder: Path, dev: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, _Score]:
    """The scores on a task of all runs for which it is defined on some resample."""
    metric = metric_of(next(found[task] for found in dev.values() if task in found))
    values = {run: found[task][metric] for run, found in dev.items() if found.get(task, {}).get(metric) is not None}
    if not values:
        return {}
    tables = {run: results.examples(folder, run, task, numeric=metric != "accuracy") for run in values}
    first = next(iter(values))
    for run, table in tables.items():
        if not table[["id", "label"]].equals(tables[first][["id", "label"]]):
            raise MtbertError(
                f"{folder / run}: its dev examples of {task} are not those of {folder / first}, so their scores cannot be "
                f"compared; run `dvc repro evaluate@{first} evaluate@{run}`, which evaluates both on the same data"
            )
    labels = tables[first]["label"].to_numpy()
    predictions = np.stack([table["prediction"].to_numpy() for table in tables.values()])
    samples = resampled(metric, labels, predictions, RESAMPLES, np.random.default_rng([SEED, *task.encode()]))
    right: Iterable[np.ndarray | None] = predictions == labels if metric == "accuracy" else [None] * len(values)
    found = {run: _Score(value, *parts) for (run, value), *parts in zip(values.items(), samples.T, right, strict=True)}
    return {run: score for run, score in found.items() if not np.isnan(score.samples).all()}


def _interval(score: _Score | None) -> Interval:
    return UNDEFINED if score is None else Interval(score.value, *interval(score.samples))


def _paired(first: _Score, second: _Score) -> Paired:
    differences = second.samples - first.samples
    p = bootstrap_p(differences) if first.right is None or second.right is None else mcnemar(first.right, second.right)
    return Paired(second.value - first.value, *interval(differences), p, float(np.nanstd(differences, ddof=1)))


def _over_seeds(scores: Sequence[_Score]) -> OverSeeds:
    if len(scores) < 2:
        return OverSeeds(len(scores), None, None, None)
    values = np.array([score.value for score in scores])
    of_seeds = values.var(ddof=1)
    # The runs share their resamples, so the covariance between runs is the variance that the choice of examples causes in all of them.
    samples = np.stack([score.samples for score in scores])
    covariances = np.cov(samples[:, ~np.isnan(samples).any(0)])
    of_examples = max(0.0, float(covariances[~np.eye(len(scores), dtype=bool)].mean()))
    share = float(of_seeds / (of_seeds + of_examples)) if of_seeds + of_examples > 0 else None
    return OverSeeds(len(scores), float(values.mean()), float(np.sqrt(of_seeds)), share)
