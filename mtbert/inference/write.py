"""Predictions as CSV, JSONL or a table on a terminal, a chunk at a time."""

import json
from collections.abc import Sequence
from typing import BinaryIO, Literal, NamedTuple, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtbert.inference.model import Label, Prediction, TaskInfo, names_of
from mtbert.inference.read import Row
from mtbert.tabular import csv_text

Format = Literal["csv", "jsonl", "table"]


class Predicted(NamedTuple):
    """A row of the input and its prediction."""

    row: Row
    prediction: Prediction


class Writer(Protocol):
    def write(self, chunk: Sequence[Predicted]) -> None:
        """Write predictions; there may be none."""


class Csv:
    """A header at once; then line, the sentences, and label and a probability for each, or score and the ends of its range."""

    def __init__(self, file: BinaryIO, task: TaskInfo) -> None:
        self._file = file
        self._ends = [] if task.labels else [f"{task.low:g}", f"{task.high:g}"]
        last = ["label", *(f"p({name})" for name in task.labels)] if task.labels else ["score", "low", "high"]
        self._write([["line", *names_of(task.sentences), *last]])

    def write(self, chunk: Sequence[Predicted]) -> None:
        self._write([[str(row.line), *row.sides, *_cells(prediction, 6), *self._ends] for row, prediction in chunk])

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        if rows:
            self._file.write(csv_text(rows[0], rows[1:]).encode())
            self._file.flush()


class Jsonl:
    """An object a line: line, the sentences, then label and probabilities, or score and range."""

    def __init__(self, file: BinaryIO, task: TaskInfo) -> None:
        self._file, self._names = file, names_of(task.sentences)

    def write(self, chunk: Sequence[Predicted]) -> None:
        for row, prediction in chunk:
            value = {"line": row.line, **dict(zip(self._names, row.sides, strict=True)), **_values(prediction)}
            self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()


class OnTerminal:
    """A table for each chunk."""

    def __init__(self, task: TaskInfo) -> None:
        self._task, self._console = task, Console()

    def write(self, chunk: Sequence[Predicted]) -> None:
        if not chunk:
            return
        task = self._task
        last = ["label", *task.labels] if task.labels else [f"score ({task.low:g} to {task.high:g})"]
        table = Table(box=None, pad_edge=False)
        for name in names_of(task.sentences):
            table.add_column(name, overflow="fold", ratio=1)
        for number, name in enumerate(last):
            table.add_column(_shown(name), justify="right" if number or not task.labels else "left")
        for row, prediction in chunk:
            table.add_row(*map(_shown, [*row.sides, *_cells(prediction, 3)]))
        self._console.print(table)


def _cells(prediction: Prediction, decimals: int) -> list[str]:
    if isinstance(prediction, Label):
        return [prediction.label, *(f"{share:.{decimals}f}" for share in prediction.probabilities.values())]
    return [f"{prediction.score:.{decimals}f}"]


def _values(prediction: Prediction) -> dict[str, object]:
    if isinstance(prediction, Label):
        shares = {name: round(share, 6) for name, share in prediction.probabilities.items()}
        return {"label": prediction.label, "probabilities": shares}
    return {"score": round(prediction.score, 6), "range": [prediction.low, prediction.high]}


def _shown(text: str) -> Text:
    """The text without control characters."""
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))
