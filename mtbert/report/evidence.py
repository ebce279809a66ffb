"""What decides the claims of the paper: the runs' results and their statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mtbert.report import results
from mtbert.report.statistics import Interval, Statistics


class NotRun(Exception):
    """A run has no results, or none of a task; the message says which."""


@dataclass(frozen=True)
class Evidence:
    """The results of the runs. Each method raises `NotRun` if there are none of a run.

    Attributes:
        folder: the results folder, as evaluate writes it.
        statistics: of the runs that the claims may use.
        count: how many parameters a run with these settings trains with BERT-base. It builds a model, so it needs torch, which this
            package does not load.
    """

    folder: Path
    statistics: Statistics
    count: Callable[[Mapping[str, Any]], int]

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

    def settings(self, run: str) -> dict[str, Any]:
        """The run's settings, as in params.yaml."""
        self._require(run)
        return results.record(self.folder, run)["settings"]

    def trained(self, run: str) -> int:
        """How many parameters the run trains."""
        return self.metrics(run)["parameters"]["trainable"]

    def trained_with_bert_base(self, run: str) -> int:
        """How many parameters the run would train if the paper's encoder were its own."""
        return self.count(self.settings(run))

    def examples(self, run: str, task: str) -> pd.DataFrame:
        """A row per dev example, with label and prediction."""
        if task not in self.metrics(run)["dev"]:
            raise NotRun(f"{run} has no head for {task}.")
        return results.examples(self.folder, run, task)

    def curve(self, run: str, column: str) -> "pd.Series[float]":
        """A column of history.csv by epoch, without the untrained model's."""
        self._require(run)
        found = results.history(self.folder, run).set_index("epoch")
        if column not in found:
            raise NotRun(f"{run} has no {column}.")
        return found.loc[1:, column]

    def _require(self, *runs: str) -> None:
        if missing := [run for run in runs if run not in self.statistics.values]:
            raise NotRun(f"There are no results of {' and '.join(missing)}.")
