"""64-bit hashes of texts. Different hashes mean different texts; equal hashes mean that the texts have to be compared."""

from collections.abc import Collection

import numpy as np


def hashes(texts: Collection[str]) -> np.ndarray:
    """(T,) int64; a text's hash differs from process to process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


class Met:
    """Remembers texts by their hashes, 8 bytes each."""

    def __init__(self) -> None:
        self._runs: list[
            np.ndarray
        ] = []  # sorted, each more than twice as long as the next, so there are few and merges are rare

    def perhaps(self, texts: Collection[str]) -> bool:
        """Whether one of them may be among those of earlier calls; repeats within this call do not count."""
        run = np.sort(hashes(texts))
        found = any((old[np.searchsorted(old[:-1], run)] == run).any() for old in self._runs)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
        return found
