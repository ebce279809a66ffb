"""The dev predictions of all runs, compact enough for the page: each example's text once, predictions as short numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtbert.report import results
from mtbert.report.text import visible
from mtbert.tasks.task import Task

LIMIT = 3_500_000  # bytes of JSON; what else is on the page takes about one megabyte

Browser = dict[str, dict[str, Any]]


def read_predictions(
    folder: Path, metrics: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task], limit: int = LIMIT
) -> Browser:
    """What the page's browser of predictions shows, by task.

    Where that is too large, a task keeps every second example, every third, and so on.

    Args:
        folder: the results folder.
        metrics: metrics.json of each run; that the runs' examples agree was checked when `statistics` compared them.
        tasks: all tasks, by name.
        limit: bytes of the result as JSON.

    Returns:
        For each task with predictions:
        `title`; `labels`, their names by number, or [] where labels are scores;
        `total`, the number of examples, and `rows`, the lines of those kept, 1 being the first example;
        `texts`, a list of sentences for each text column; `truth`, the labels;
        `runs`: for each run its `predicted` labels and, unless these are scores, its `confidence` in them in per mille.

    Raises:
        MtbertError: a file is missing or damaged.
    """
    found = {}
    for name, task in tasks.items():
        if runs := [run for run, about in metrics.items() if name in about["dev"]]:
            found[name] = {run: numbered(folder, run, task) for run in runs}
    steps = dict.fromkeys(found, 1)
    while True:
        parts = {name: _part(tasks[name], tables, steps[name]) for name, tables in found.items()}
        sizes = {name: len(to_json(part).encode()) for name, part in parts.items()}
        if sum(sizes.values()) <= limit or max(len(part["rows"]) for part in parts.values()) < 2:
            return parts
        steps[max(sizes, key=lambda name: sizes[name])] += 1


def numbered(folder: Path, run: str, task: Task) -> pd.DataFrame:
    """A row per dev example, as `results.examples` reads it, with the numbers of classes in place of their names.

    Raises:
        MtbertError: a file is missing or damaged.
    """
    table = results.examples(folder, run, task.name, numeric=not task.classes)
    if task.classes:
        numbers = {name: number for number, name in enumerate(task.classes)}
        for column in ("label", "prediction"):
            table[column] = table[column].map(numbers)
    return table


def confidence(task: Task, table: pd.DataFrame) -> np.ndarray:
    """The probability of the predicted label, (B,), of a task whose labels are not scores."""
    # The score of a binary task is the probability of label 1, that of others the probability of the predicted label.
    score = table["score"].to_numpy()
    return np.where(table["prediction"] == 0, 1 - score, score) if task.kind == "binary" else score


def to_json(value: Any) -> str:
    """JSON for a script element of HTML: `<` is escaped, so that no text ends the element or opens a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _part(task: Task, tables: Mapping[str, pd.DataFrame], step: int) -> dict[str, Any]:
    examples = next(iter(tables.values()))
    kept = examples[::step]
    return {
        "title": task.title,
        "labels": list(task.labels),
        "total": len(examples),
        "rows": (kept.index + 1).tolist(),
        "texts": [[visible(text) for text in kept[name]] for name in results.TEXTS if name in kept],
        "truth": _numbers(kept["label"]),
        "runs": {run: _predicted(task, table[::step]) for run, table in tables.items()},
    }


def _predicted(task: Task, table: pd.DataFrame) -> dict[str, Any]:
    if task.kind == "score":
        return {"predicted": _numbers(table["prediction"])}
    sure = np.rint(1000 * confidence(task, table)).astype(int).tolist()
    return {"predicted": _numbers(table["prediction"]), "confidence": sure}


def _numbers(values: pd.Series) -> list[float | int]:
    """The values to four decimals, whole ones without a decimal point."""
    return [int(value) if value == int(value) else round(value, 4) for value in values.tolist()]
