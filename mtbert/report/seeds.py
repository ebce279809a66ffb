"""Gains over seeds: whether a step of the paper is a gain with any seeds of its two configurations."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from mtbert.report.statistics import OVERALL, Statistics

Seeds = Mapping[str, Sequence[str]]


class OverPairs(NamedTuple):
    """The gains in overall score of one configuration over another: of each run of the first over each run of the second.

    Attributes:
        pairs: how many there are.
        above, below: in how many of them the 95% interval lies above or below 0.
        smallest, largest: of the gains.
    """

    run: str
    over: str
    pairs: int
    above: int
    below: int
    smallest: float
    largest: float


def gains_over_seeds(statistics: Statistics, seeds: Seeds, steps: Iterable[tuple[str, str]]) -> list[OverPairs]:
    """The gains of each step of which one configuration has several seeds.

    Args:
        seeds: for the first run of a configuration, the others that differ from it in their seed alone.
        steps: (run, over), by their first runs.
    """
    found = []
    for run, over in steps:
        # The statistics may lack some of the runs.
        firsts, seconds = (
            [name for name in (one, *seeds.get(one, ())) if name in statistics.values] for one in (over, run)
        )
        gains = [statistics.difference(first, second, OVERALL) for first, second in product(firsts, seconds)]
        values = [gain.value for gain in gains if gain.value is not None]
        if len(values) > 1:
            above = sum(gain.low is not None and gain.low > 0 for gain in gains)
            below = sum(gain.high is not None and gain.high < 0 for gain in gains)
            found.append(OverPairs(run, over, len(values), above, below, min(values), max(values)))
    return found
