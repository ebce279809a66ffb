"""What decides the claims of the paper: the runs' results and their statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mtbert.report import results
from mtbert.report.statistics import Interval, Statistics


class NotRun(Exception):
    """A run has no results; the message says which."""


@dataclass(frozen=True)
class Evidence:
    """The results of the runs. Each method raises `NotRun` if there are none of a run.

    Attributes:
        folder: the results folder, as evaluate writes it.
        statistics: of the runs that the claims may use.
    """

    folder: Path
    statistics: Statistics

    def difference(self, first: str, second: str, metric: str) -> Interval:
        """`second` minus `first`."""
        self._require(first, second)
        return Interval(*self.statistics.difference(first, second, metric)[:3])

    def metric(self, run: str, metric: str) -> Interval:
        """A dev score."""
        self._require(run)
        return self.statistics.metric(run, metric)

    def metrics(self, run: str) -> dict[str, Any]:
        """metrics.json."""
        self._require(run)
        return results.metrics(self.folder, run)

    def examples(self, run: str, task: str) -> pd.DataFrame:
        """A row per dev example, with label and prediction."""
        self._require(run)
        return results.examples(self.folder, run, task)

    def history(self, run: str) -> pd.DataFrame:
        """A row per epoch of training, without the untrained model's."""
        self._require(run)
        found = results.history(self.folder, run)
        return found[found["epoch"] > 0]

    def _require(self, *runs: str) -> None:
        if missing := [run for run in runs if run not in self.statistics.values]:
            raise NotRun(f"There are no results of {' and '.join(missing)}.")
