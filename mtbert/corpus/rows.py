"""Rows of raw files: single rows, blocks of rows, malformed rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Example(NamedTuple):
    """One row. `sentence2` is None for single sentences, `label` for unlabelled files; `line` is the row's first line."""

    id: str
    sentence1: str
    sentence2: str | None
    label: float | None
    line: int


class RowBlock(NamedTuple):
    """R consecutive rows by column; `sides` holds the first sentences and, for pairs, the second ones."""

    ids: Sequence[str]
    sides: Sequence[Sequence[str]]
    labels: Sequence[float] | None
    lines: Sequence[int]

    def __bool__(self) -> bool:
        return len(self.ids) > 0

    def keep(self, rows: Sequence[int]) -> "RowBlock":
        """The rows at these indices, in this order."""
        return RowBlock(
            [self.ids[n] for n in rows],
            [[side[n] for n in rows] for side in self.sides],
            None if self.labels is None else [self.labels[n] for n in rows],
            [self.lines[n] for n in rows],
        )


@dataclass(frozen=True)
class BadRow:
    """A malformed row: its place (1-based), what is wrong, and the remedy."""

    path: str
    line: int
    column: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.what}; {self.remedy}"
