"""A file of examples read at once."""

from itertools import repeat
from pathlib import Path
from typing import Literal

from mtbert.corpus.read import read_blocks
from mtbert.corpus.rows import BadRow, Example
from mtbert.tasks.task import Task


def read_split(
    path: Path, task: Task, labelled: bool, on_bad_row: Literal["error", "drop"]
) -> tuple[list[Example], list[BadRow]]:
    """The whole file, as `read_blocks` reads it: its examples and its malformed rows."""
    examples: list[Example] = []
    bad: list[BadRow] = []
    for rows, malformed in read_blocks(path, task, labelled, on_bad_row):
        second = rows.sides[1] if len(rows.sides) == 2 else repeat(None)
        labels = repeat(None) if rows.labels is None else rows.labels
        examples += map(Example, rows.ids, rows.sides[0], second, labels, rows.lines)
        bad += malformed
    return examples, bad
