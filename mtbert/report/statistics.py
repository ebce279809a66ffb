"""How sure the dev scores are: intervals, paired differences of runs, and the spread over seeds.

Made by bootstrap over the dev examples of each task (`mtbert.evaluation.resampling`). The overall score combines the tasks'
resamples. The intervals cover another choice of examples, not another seed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import METRICS
from mtbert.evaluation.resampling import detectable, holm, interval, mcnemar, resampled, sign_test
from mtbert.files import atomic_write_text
from mtbert.report import results
from mtbert.tasks.paper import TASKS, overall

RESAMPLES = 10_000
SEED = 11711
SIGNIFICANT = 0.05
OVERALL = "overall"


class Interval(NamedTuple):
    """A dev score and its 95% interval; all None if the score is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """A difference of two runs on the same examples; all None if a score is undefined.

    Attributes:
        p: two-sided: McNemar's exact test for an accuracy, else from the bootstrap.
        error: the difference's standard error over examples.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    error: float | None


class Difference(NamedTuple):
    """A difference of two runs, the second minus the first; all None if a score is undefined.

    Attributes:
        adjusted: p after Holm's correction over all pairs of a table's rows; None if no table has both runs.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None


class OverSeeds(NamedTuple):
    """A metric over runs that differ in their seed alone; None where fewer than two of them have it.

    Attributes:
        share: of the variance of one run's score that is due to the seed: seeds / (seeds + choice of examples).
    """

    runs: int
    mean: float | None
    sd: float | None
    share: float | None


@dataclass(frozen=True)
class Statistics:
    """The statistics of a set of runs. A metric is named `overall` or by its task.

    Attributes:
        values: by run and metric.
        pairs: by the two runs, in the order of `values`, and metric.
        tables: the runs that each table compares.
        seeds: by the first of the runs that differ in their seed alone, and metric.
        resamples: how often the examples were drawn.
    """

    values: Mapping[str, Mapping[str, Interval]]
    pairs: Mapping[tuple[str, str], Mapping[str, Paired]]
    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Mapping[str, Mapping[str, OverSeeds]] = field(default_factory=dict)
    resamples: int = RESAMPLES

    def metric(self, run: str, metric: str) -> Interval:
        """A run's dev score with its interval."""
        return self.values[run].get(metric, UNDEFINED)

    def difference(self, first: str, second: str, metric: str, table: str | None = None) -> Difference:
        """`second` minus `first`.

        Args:
            table: within which p is adjusted; by default the table where the adjusted p is largest.
        """
        found = self._pair(first, second, metric)
        tables = [table] if table else [name for name, runs in self.tables.items() if {first, second} <= set(runs)]
        adjusted = [self.adjusted(name, metric)[frozenset((first, second))] for name in tables] if found.p is not None else []
        return Difference(*found[:4], max(adjusted, default=None))

    def detectable(self, first: str, second: str, metric: str) -> float | None:
        """The smallest true difference of these runs that such dev examples show with a power of 80%."""
        error = self._pair(first, second, metric).error
        return None if error is None else detectable(error)

    def adjusted(self, table: str, metric: str) -> dict[frozenset[str], float]:
        """The adjusted p of all pairs of a table's runs for which the metric is defined."""
        runs = dict.fromkeys(self.tables[table])
        found = {frozenset(pair): self._pair(*pair, metric).p for pair in combinations(runs, 2)}
        defined = {pair: p for pair, p in found.items() if p is not None}
        return dict(zip(defined, holm(list(defined.values())), strict=True))

    def _pair(self, first: str, second: str, metric: str) -> Paired:
        if (first, second) in self.pairs:
            return self.pairs[first, second].get(metric, Paired(*[None] * 5))
        value, low, high, p, error = self._pair(second, first, metric)
        return Paired(*(None if end is None else -end for end in (value, high, low)), p, error)


UNDEFINED = Interval(None, None, None)
