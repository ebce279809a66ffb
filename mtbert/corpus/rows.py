"""Rows of the course's files as they are read: one by one, by the block, and those that cannot be used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple


class Example(NamedTuple):
    """One row; `sentence2` is None for a single sentence, `label` where the file has none; `line` is its first line."""

    id: str
    sentence1: str
    sentence2: str | None
    label: float | None
    line: int


class RowBlock(NamedTuple):
    """Consecutive rows by column, R values each; `sides` are the first sentences and, of pairs, the second ones."""

    ids: Sequence[str]
    sides: Sequence[Sequence[str]]
    labels: Sequence[float] | None
    lines: Sequence[int]

    def __bool__(self) -> bool:
        return len(self.ids) > 0

    def examples(self) -> Iterator[Example]:
        """The same row by row."""
        second = self.sides[1] if len(self.sides) == 2 else repeat(None)
        labels = repeat(None) if self.labels is None else self.labels
        return map(Example, self.ids, self.sides[0], second, labels, self.lines)

    def keep(self, rows: Sequence[int]) -> "RowBlock":
        """Those of the rows, by their places in the block, in that order."""
        return RowBlock(
            [self.ids[n] for n in rows],
            [[side[n] for n in rows] for side in self.sides],
            None if self.labels is None else [self.labels[n] for n in rows],
            [self.lines[n] for n in rows],
        )


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where (1-based), what is wrong with it, and what to do."""

    path: str
    line: int
    column: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.what}; {self.remedy}"
