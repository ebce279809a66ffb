"""Compare two evaluated runs: settings, scores on the same dev examples, and the examples that one of them gets right alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtbert.report import results
from mtbert.report.measure import measure
from mtbert.report.statistics import OVERALL, UNPAIRED, Interval, Paired


class Score(NamedTuple):
    """A metric of both runs; the difference is the second minus the first.

    Attributes:
        detectable: the smallest true difference that such examples show with a power of 80%; None as `Statistics.detectable`.
    """

    first: Interval
    second: Interval
    difference: Paired
    detectable: float | None


class Flip(NamedTuple):
    """An example that one run alone gets right.

    Attributes:
        right: that run.
        texts: one sentence or two.
        predictions: of the first run and the second.
    """

    right: str
    id: str
    texts: list[str]
    label: str
    predictions: list[str]


class Flips(NamedTuple):
    """How many examples of a task only the first run gets right, and only the second; and the first few of each."""

    first: int
    second: int
    examples: list[Flip]


class Comparison(NamedTuple):
    """Two runs side by side.

    Attributes:
        settings: those that differ, by dotted key, and `data`, a hash, if they were trained on other data; None where a run has none.
        scores: by metric, `overall` or a task's name.
        flips: by task, of tasks with accuracies.
        facts: parameters trained and other numbers, of the first run and the second; None where unknown.
    """

    runs: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]
    scores: dict[str, Score]
    flips: dict[str, Flips]
    facts: dict[str, tuple[Any, Any]]


def compare(folder: Path, first: str, second: str, examples: int) -> Comparison:
    """Compare two runs from their results.

    Args:
        folder: the results folder.
        examples: how many flips of each kind to list.

    Raises:
        MtbertError: a run is not evaluated, or they were evaluated on different examples.
    """
    runs = first, second
    found, statistics = [results.metrics(folder, run) for run in runs], measure(folder, runs)
    values, paired = [statistics.values[run] for run in runs], statistics.pairs[runs]
    shared = [name for name in values[0] if name in values[1]]
    records = [results.record(folder, run) for run in runs]
    before, after = (results.dotted(record.get("settings", {})) | {"data": record.get("data")} for record in records)
    return Comparison(
        runs,
        {key: (before.get(key), after.get(key)) for key in before | after if before.get(key) != after.get(key)},
        {
            name: Score(
                values[0][name],
                values[1][name],
                paired.get(name, UNPAIRED),
                statistics.detectable(first, second, name),
            )
            for name in shared
        },
        {
            task: _flips(folder, runs, task, examples)
            for task in shared
            if task != OVERALL and "accuracy" in found[0]["dev"][task]
        },
        {"trained_parameters": (found[0]["parameters"]["trainable"], found[1]["parameters"]["trainable"])},
    )


def _flips(folder: Path, runs: tuple[str, str], task: str, examples: int) -> Flips:
    tables = [results.examples(folder, run, task, numeric=False) for run in runs]
    right = [(table["prediction"] == table["label"]).to_numpy() for table in tables]
    alone = [np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(right[1] & ~right[0])]
    return Flips(
        len(alone[0]),
        len(alone[1]),
        [
            Flip(
                run,
                tables[0]["id"][row],
                [tables[0][text][row] for text in results.TEXTS if text in tables[0]],
                tables[0]["label"][row],
                [table["prediction"][row] for table in tables],
            )
            for run, rows in zip(runs, alone, strict=True)
            for row in rows[:examples]
        ],
    )
