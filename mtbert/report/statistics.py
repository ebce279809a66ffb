"""How sure the dev scores are: intervals, paired differences of runs, and the spread over seeds.

`mtbert.report.measure` makes them from results; reports/PROFILE/statistics.json keeps them. The intervals cover another choice of
dev examples, not another seed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.evaluation.resampling import LEVEL, detectable, holm
from mtbert.files import atomic_write_text
from mtbert.report.plain import plain
from mtbert.report.reading import reading

RESAMPLES, SEED = 10_000, 11711  # of the bootstrap
OVERALL = "overall"
STATISTICS = "statistics.json"  # in reports/PROFILE
DIGITS = 6  # significant, of its numbers
FEWEST_SEEDS = 5  # fewer say too little about the seed's share of the variance


class Interval(NamedTuple):
    """A dev score and its 95% interval; all None if the score is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """A difference of two runs on the same examples, the second minus the first; all None if a score is undefined.

    Attributes:
        p: two-sided: McNemar's exact test for an accuracy, else from the bootstrap.
        error: the difference's standard error over examples.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    error: float | None


UNDEFINED, UNPAIRED = Interval(None, None, None), Paired(None, None, None, None, None)


class OverSeeds(NamedTuple):
    """A metric over runs that differ in their seed alone; None where fewer than two of them have it.

    Attributes:
        share: of the variance of one run's score that is due to the seed: seeds / (seeds + choice of examples). The latter is what moves
            all seeds alike; what an example does to one seed alone counts as the seed's.
    """

    runs: int
    mean: float | None
    sd: float | None
    share: float | None

    @property
    def shown_share(self) -> str:
        """The share, or "" where there are too few seeds to tell."""
        return "" if self.share is None or self.runs < FEWEST_SEEDS else f"{self.share:.0%}"


@dataclass(frozen=True)
class Statistics:
    """The statistics of a set of runs. A metric is named `overall` or by its task.

    Attributes:
        values: by run and metric.
        pairs: by the two runs, in the order of `values`, and metric.
        seeds: by the first of the runs that differ in their seed alone, and metric.
        resamples: how often the examples were drawn.
    """

    values: Mapping[str, Mapping[str, Interval]]
    pairs: Mapping[tuple[str, str], Mapping[str, Paired]]
    seeds: Mapping[str, Mapping[str, OverSeeds]] = field(default_factory=dict)
    resamples: int = RESAMPLES

    def metric(self, run: str, metric: str) -> Interval:
        """A run's dev score with its interval."""
        return self.values[run].get(metric, UNDEFINED)

    def difference(self, first: str, second: str, metric: str) -> Paired:
        """`second` minus `first`."""
        if (first, second) in self.pairs:
            return self.pairs[first, second].get(metric, UNPAIRED)
        value, low, high, p, error = self.pairs[second, first].get(metric, UNPAIRED)
        return UNPAIRED if value is None or low is None or high is None else Paired(-value, -high, -low, p, error)

    def adjusted(self, runs: Iterable[str], metric: str) -> dict[tuple[str, str], float]:
        """The p of all pairs of these runs after Holm's correction; without pairs for which the metric is undefined."""
        found = {pair: self.difference(*pair, metric).p for pair in combinations(runs, 2)}
        defined = {pair: p for pair, p in found.items() if p is not None}
        return dict(zip(defined, holm(list(defined.values())), strict=True))

    def detectable(self, first: str, second: str, metric: str) -> float | None:
        """The smallest true difference of these runs that such dev examples show with a power of 80%.

        None if a score is undefined, or if their difference is the same in every resample.
        """
        error = self.difference(first, second, metric).error
        return detectable(error) if error else None


def write_statistics(path: Path, found: Statistics) -> None:
    """Write the statistics as JSON, a line for each run and pair."""
    sections = {
        **{"level": _json(LEVEL), "resamples": _json(found.resamples), "seed": _json(SEED)},
        "runs": lines(plain(found.values, DIGITS)),
        "seeds": lines(plain(found.seeds, DIGITS)),
        "pairs": lines([{"runs": pair, **plain(metrics, DIGITS)} for pair, metrics in found.pairs.items()]),
    }
    body = ",\n".join(f"{_json(key)}: {value}" for key, value in sections.items())
    atomic_write_text(path, f"{{\n{body}\n}}\n")


def read_statistics(path: Path) -> Statistics:
    """Read what `write_statistics` wrote.

    Raises:
        MtbertError: the file is missing or damaged; the message names the stage to run.
    """
    with reading(path, "statistics"):
        found = json.loads(path.read_text(encoding="utf-8"))
        pairs = {tuple(pair.pop("runs")): _typed(Paired, pair) for pair in found["pairs"]}
        values, seeds = (
            {run: _typed(kind, metrics) for run, metrics in found[key].items()}
            for key, kind in (("runs", Interval), ("seeds", OverSeeds))
        )
        return Statistics(values, pairs, seeds, found["resamples"])


def lines(section: Mapping[str, Any] | Sequence[Any]) -> str:
    """A section of a JSON file with each of its entries on a line."""
    if isinstance(section, Mapping):
        return "{" + ",".join(f"\n  {_json(key)}: {_json(value)}" for key, value in section.items()) + "\n}"
    return "[" + ",".join(f"\n  {_json(value)}" for value in section) + "\n]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _typed(kind: type[Any], metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {metric: kind(**part) for metric, part in metrics.items()}
