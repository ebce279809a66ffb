"""64-bit hashes of texts: two texts of different hashes differ; whether two of one hash are the same, their reader must look up."""

from collections.abc import Collection

import numpy as np


def hashes(texts: Collection[str]) -> np.ndarray:
    """(T,) int64, another for one text in each process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


class Met:
    """Remembers texts by their hashes, 8 bytes each."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, each more than twice as long as the next: few, and seldom merged

    def perhaps(self, texts: Collection[str]) -> bool:
        """Whether one of them may have been given before; their being the same among themselves does not count."""
        run = np.sort(hashes(texts))
        found = any((old[np.searchsorted(old[:-1], run)] == run).any() for old in self._runs)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
        return found
