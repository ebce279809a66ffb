"""Seeded random choices that are the same on every machine and with every numpy version.

numpy guarantees a fixed stream for its bit generators, but not for the distributions built on them, so they are built here.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
BUFFER = 1024


class PortableRandom:
    """Random choices from PCG64. `keys` (non-negative integers) select independent streams of one seed."""

    def __init__(self, seed: int, *keys: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, *keys]))
        self._buffer: list[int] = []

    def raw(self) -> int:
        """64 random bits."""
        if not self._buffer:
            self._buffer = [int(word) for word in self._bits.random_raw(BUFFER)]
        return self._buffer.pop()

    def below(self, bound: int) -> int:
        """An integer in [0, bound), with a negligible bias of at most bound / 2^64."""
        return self.raw() * bound >> 64

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[self.below(len(choices))]

    def other(self, choices: Sequence[T], *taken: T) -> T:
        """One of `choices` that is not among `taken`."""
        return self.pick([choice for choice in choices if choice not in taken])

    def chance(self, percent: float) -> bool:
        """True with this probability, to a thousandth of a percent."""
        return self.below(100_000) < round(percent * 1000)

    def weighted(self, choices: Sequence[tuple[T, int]]) -> T:
        """One of the (choice, weight) pairs' choices."""
        left = self.below(sum(weight for _, weight in choices))
        for choice, weight in choices:
            left -= weight
            if left < 0:
                return choice
        raise AssertionError("weights are not positive")

    def hex_id(self) -> str:
        """An id of 25 hex digits, like the course's."""
        return f"{self.raw():016x}{self.raw():016x}"[:25]
