"""64-bit hashes of texts, to find repeats cheaply. Texts with equal hashes may still differ: compare the texts."""

from collections.abc import Collection

import numpy as np


def hashes(texts: Collection[str]) -> np.ndarray:
    """(T,) int64; Python salts hashes, so they differ between processes."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


class SeenHashes:
    """The hashes of the texts seen so far, 8 bytes each."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # each sorted and over twice as long as the next: few runs, few merges

    def may_have(self, texts: Collection[str]) -> bool:
        """Add texts; returns whether one of them may have been in an earlier call. Repeats within `texts` do not count."""
        run = np.sort(hashes(texts))
        found = any((old[np.searchsorted(old[:-1], run)] == run).any() for old in self._runs)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
        return found
