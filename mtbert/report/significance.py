"""The notes below a table that say how sure its scores are."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from mtbert.evaluation.resampling import LEVEL, POWER
from mtbert.report.statistics import Statistics
from mtbert.report.text import number
from mtbert.tasks.paper import QUORA, SST

SIGNIFICANT = 1 - LEVEL
LISTED = 3  # pairs of rows that a note names
SMALLEST = f"smallest true difference that these examples would show with a probability of {POWER:.0%}"
# What a column of detectable differences holds.
DETECTABLE = f"Detectable: the {SMALLEST} (at {SIGNIFICANT:.0%}, without correction)."

Titles = Mapping[str, str]


def certainty(statistics: Statistics, runs: Titles, metrics: Titles) -> list[str]:
    """What the intervals are, which rows differ significantly, which differences would show, and the spread over seeds.

    Args:
        runs, metrics: what the table calls the runs that it compares and the metrics that it shows.
    """
    notes = [interval_note(statistics)]
    counts = [_significant(statistics.adjusted(runs, metric), runs, title) for metric, title in metrics.items()]
    if any(counts):
        notes.append(
            f"Pairs of rows that differ significantly on the same examples: {'; '.join(filter(None, counts))}. Tested at "
            f"{SIGNIFICANT:.0%}, {tests_of(metrics)}, with Holm's correction over the pairs of a column."
        )
    ranges = [_detectable(statistics, runs, metric, title) for metric, title in metrics.items()]
    if any(ranges):
        notes.append(
            f"The {SMALLEST}, depending on the pair: {', '.join(filter(None, ranges))} "
            f"(at {SIGNIFICANT:.0%}, without correction)."
        )
    return [*notes, *seed_notes(statistics, runs, metrics)]


def seed_notes(statistics: Statistics, runs: Titles, metrics: Titles) -> list[str]:
    """The spread over seeds of each run that was trained with several. See `certainty`."""
    notes = [_seeds(statistics, run, title, metrics) for run, title in runs.items() if run in statistics.seeds]
    return list(filter(None, notes))


def interval_note(statistics: Statistics) -> str:
    """What the ± of a score is."""
    return (
        f"±: half the width of the {LEVEL:.0%} interval, by bootstrap over the development examples (percentiles of "
        f"{statistics.resamples:,} resamples). It covers another choice of examples, not another seed."
    )


def tests_of(metrics: Collection[str]) -> str:
    """How differences in these metrics are tested."""
    accuracies = {SST.name, QUORA.name} & set(metrics)
    return "by McNemar's exact test for accuracies, else by bootstrap" if accuracies else "by bootstrap"


def _significant(adjusted: Mapping[tuple[str, str], float], runs: Titles, column: str) -> str:
    """How many of a column's pairs differ significantly; in brackets which, or all but which, if these are few."""
    if not adjusted:
        return ""
    differing, others = (
        [pair for pair, p in adjusted.items() if (p < SIGNIFICANT) is wanted] for wanted in (True, False)
    )
    text = f"{column} {len(differing)} of {len(adjusted)}"
    if differing and 0 < len(others) <= LISTED:
        return f"{text} (all but {_named(others, runs)})"
    return f"{text} ({_named(differing, runs)})" if others and 0 < len(differing) <= LISTED else text


def _named(pairs: Sequence[tuple[str, str]], runs: Titles) -> str:
    return ", ".join(f"{runs[first]}–{runs[second]}" for first, second in pairs)


def _detectable(statistics: Statistics, runs: Titles, metric: str, column: str) -> str:
    """The range of the smallest detectable differences of a column's pairs."""
    found = [statistics.detectable(*pair, metric) for pair in combinations(runs, 2)]
    sizes = sorted(size for size in found if size is not None)
    return f"{column} {' to '.join(dict.fromkeys(map(number, (sizes[0], sizes[-1]))))}" if sizes else ""


def _seeds(statistics: Statistics, run: str, title: str, metrics: Titles) -> str:
    over = {
        column: statistics.seeds[run][metric] for metric, column in metrics.items() if metric in statistics.seeds[run]
    }
    parts = [
        f"{column} {number(found.mean)} with standard deviation {number(found.sd)}"
        + (f" ({found.shown_share})" if found.shown_share else "")
        for column, found in over.items()
        if found.mean is not None
    ]
    if not parts:
        return ""
    text = f"{title} over {max(found.runs for found in over.values())} seeds, on average: {', '.join(parts)}."
    if any(found.shown_share for found in over.values()):
        text += " In brackets, the seed's share of the variance of one run's score; the rest is due to the choice of examples, which moves all seeds alike."
    return text
