"""Rows that repeat within a split or across splits: their hashes are in memory, their texts on disk, for where hashes agree."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mtbert.corpus.hashes import hashes

SEPARATOR = " \0 "  # of sentences; no row holds a NUL


def sentences_keys(sides: Sequence[Sequence[str]]) -> list[str]:
    """A key for each row, equal for rows of the same sentences, whatever their case, spacing and order.

    Args:
        sides: first sentences and, of pairs, second ones, R each; none is blank, none holds a NUL.

    Returns:
        R texts, each one line.
    """
    if not sides[0]:
        return []
    plain = [" ".join(SEPARATOR.join(side).casefold().split()).split(SEPARATOR) for side in sides]
    if len(plain) == 1:
        return plain[0]
    return [f"{one}\0{two}" if one <= two else f"{two}\0{one}" for one, two in zip(*plain, strict=True)]


class Keys:
    """The keys of a split's rows: 24 bytes a row in memory, the texts in an unnamed temporary file."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._hashes: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._labels: list[np.ndarray] = [np.zeros(0)]
        self._ends: list[np.ndarray] = [np.zeros(1, np.int64)]  # of each text in the file, after its newline
        self._order = np.zeros(0, np.int64)

    def add(self, keys: Sequence[str], labels: Sequence[float] | None) -> None:
        """Rows in the order of the file; `labels` is None where the split has none."""
        if not keys:
            return
        data = "".join(f"{key}\n" for key in keys).encode()
        self._hashes.append(hashes(keys))
        self._labels.append(np.zeros(len(keys)) if labels is None else np.array(labels, np.float64))
        self._ends.append(self._ends[-1][-1] + np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1)
        self._file.write(data)

    def close_up(self) -> None:
        """Sort what was added; call once, before `repeated` and `where`."""
        self._file.flush()
        for parts in (self._hashes, self._labels, self._ends):
            parts[:] = [np.concatenate(parts)]
        self._order = np.argsort(self._hashes[0], kind="stable")
        self._hashes[0] = self._hashes[0][self._order]

    def repeated(self) -> tuple[int, int]:
        """How many rows repeat an earlier one: with any label, and with the same label."""
        edges = np.flatnonzero(self._hashes[0][1:] != self._hashes[0][:-1]) + 1
        bounds = np.concatenate([[0], edges, [len(self._order)]])
        any_label = same_label = 0
        for run in np.flatnonzero(np.diff(bounds) > 1):
            rows = self._order[bounds[run] : bounds[run + 1]]
            any_label += len(rows) - len({self._text(row) for row in rows})
            same_label += len(rows) - len({(self._text(row), self._labels[0][row]) for row in rows})
        return any_label, same_label

    def where(self, keys: Sequence[str]) -> Iterator[int]:
        """The indices of those `keys` that this split has."""
        wanted = hashes(keys)
        first, after = (np.searchsorted(self._hashes[0], wanted, side) for side in ("left", "right"))
        for place in np.flatnonzero(first < after).tolist():
            text = keys[place].encode()
            if any(self._text(row) == text for row in self._order[first[place] : after[place]]):
                yield place

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _text(self, row: int) -> bytes:
        start, end = self._ends[0][row], self._ends[0][row + 1]
        return os.pread(self._file.fileno(), end - start - 1, start)
