"""Counts for a split's entry in report.json, updated block by block."""

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Any

import numpy as np

from mtbert.corpus.repeats import Keys
from mtbert.corpus.rows import BadRow, RowBlock
from mtbert.tasks.task import Task

LISTED = 100  # rows that the report lists; the counts include all


class Counts:
    """Rows, labels and wordpieces of a split.

    Attributes:
        rows, kept, bad: how many were read, written and left out as unusable.
        listed: the first of the bad rows, at most LISTED.
    """

    def __init__(self, task: Task, max_tokens: int) -> None:
        self.rows = self.kept = self.bad = 0
        self.listed: list[BadRow] = []
        self._task, self._max_tokens = task, max_tokens
        self._labels: Counter[int] = Counter()
        self._largest_label = 0.0
        self._wordpieces = self._longest = self._long_sentences = self._long_sequences = 0

    def read(self, rows: RowBlock, bad: Sequence[BadRow]) -> None:
        """Count a block from the reader."""
        self.rows += len(rows.ids) + len(bad)
        self.leave_out(bad)

    def leave_out(self, bad: Sequence[BadRow]) -> None:
        """Count rows that cannot be used."""
        self.bad += len(bad)
        self.listed = nsmallest(LISTED, [*self.listed, *bad], key=lambda row: row.line)

    def keep(self, rows: RowBlock, lengths: Sequence[np.ndarray]) -> None:
        """Count rows that are written; `lengths` holds, for first and second sentences, the numbers of wordpieces (R,)."""
        if not rows:
            return
        self.kept += len(rows.ids)
        self._labels.update(map(round, rows.labels or ()))
        self._largest_label = max(self._largest_label, *(rows.labels or [0.0]))
        both = np.sum(lengths, axis=0)
        self._wordpieces += int(both.sum())
        self._longest = max(self._longest, *(int(side.max()) for side in lengths))
        # A sequence also has [CLS] and one [SEP], or two for a pair.
        self._long_sentences += int(sum((side > self._max_tokens - 2).sum() for side in lengths))
        self._long_sequences += int((both > self._max_tokens - 1 - len(lengths)).sum())

    def summed(self, labelled: bool, repeated: tuple[int, int]) -> dict[str, Any]:
        """The split's entry in the report; `repeated` is from `Keys.repeated`."""
        task = self._task
        labels = {
            task.classes[label] if task.classes else str(label): self._labels[label]
            for label in (sorted(self._labels) if task.kind == "score" else range(int(task.high) + 1))
        }
        return {
            "rows_kept": self.kept,
            "bad_rows": {
                "count": self.bad,
                "listed": [
                    {
                        "where": f"{row.path}:{row.line}:{row.column}",
                        "line": row.line,
                        "column": row.column,
                        "what": row.what,
                    }
                    for row in self.listed
                ],
            },
            "repeated": {"sentences": repeated[0], "sentences_and_label": repeated[1]},
            "labels": labels if labelled else None,  # scores are rounded, and only those that occur are listed
            "largest_label": self._largest_label if labelled else None,
            "wordpieces": {
                "total": self._wordpieces,
                "mean": round(self._wordpieces / (self.kept * len(task.texts)), 3),
                "longest": self._longest,
            },
            "over_long": {"sentences": self._long_sentences, "sequences": self._long_sequences},
        }


class Leaks:
    """Train rows that are also in dev or test."""

    def __init__(self, held_out: Mapping[str, Keys]) -> None:
        self._held_out = held_out
        self._counts: Counter[str] = Counter()
        self._rows = 0
        self._listed: list[dict[str, Any]] = []

    def find(self, rows: RowBlock, keys: Sequence[str]) -> list[int]:
        """The indices in the block of rows that are also in dev or test."""
        where: dict[int, list[str]] = {}
        for split, held in self._held_out.items():
            for place in held.where(keys):
                where.setdefault(place, []).append(split)
                self._counts[split] += 1
        self._rows += len(where)
        for place in sorted(where)[: LISTED - len(self._listed)]:
            self._listed.append({"line": rows.lines[place], "id": rows.ids[place], "also_in": sorted(where[place])})
        return sorted(where)

    def summed(self, removed: bool) -> dict[str, Any]:
        """Their entry in the report."""
        return {
            "rows": self._rows,
            **{split: self._counts[split] for split in ("dev", "test") if split in self._held_out},
            "removed": self._rows if removed else 0,
            "listed": self._listed,
        }
