"""Tables for any study: the scores of its runs with what each was trained on, paired differences of runs, and what training took.

Each function of `TABLES` takes the results folder, the table's rows from params.yaml, {row: run}, and the statistics of the runs, as
those of `mtbert.report.tables`. Rows are titled by their keys.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from mtbert.report import results
from mtbert.report.results import Rows
from mtbert.report.significance import DETECTABLE, SIGNIFICANT, certainty, interval_note, seed_notes, tests_of
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.report.tables import estimate, highest, score
from mtbert.report.text import Table, number, probability
from mtbert.tasks.paper import METRIC_OF, QUORA, SST, STS

METRICS = {OVERALL: "Overall", SST.name: "Sentiment", QUORA.name: "Paraphrase", STS.name: "STS"}


def scores(folder: Path, rows: Rows, statistics: Statistics) -> Table:
    """Dev scores of the runs, their spread over seeds if some have several, steps and tokens, and passes over each dataset."""
    cells: list[tuple[str, ...]] = []
    titles: dict[str, str] = {}
    tasks: dict[str, None] = {}  # in order
    seeded = any(run in statistics.seeds for run in rows.values())
    for row, run in rows.items():
        titles.setdefault(run, row)
        found = results.metrics(folder, run)
        dev, training = results.scores(found["dev"]), found["training"]
        tasks |= dict.fromkeys(training["tasks"])
        of_tasks = (f"{count:,}" for count in training["tokens_of_tasks"].values())
        cells.append(
            (
                row,
                *(score(statistics, run, metric, dev[metric]) for metric in (OVERALL, *METRIC_OF)),
                *(_over_seeds(statistics, run) if seeded else ()),
                f"{training['steps']:,}",
                f"{training['tokens']:,}",
                " / ".join(of_tasks),
                " / ".join(number(count, 2) for count in passes(training).values()),
            )
        )
    notes = [
        f"Tokens by task and passes are of {', '.join(tasks)}, as far as the run trains on them. A pass is as many batches as the dataset has; "
        "special tokens count. Bold: the highest.",
        *certainty(statistics, titles, METRICS),
    ]
    deviations = [f"SD over seeds: {title}" for title in METRICS.values()] if seeded else []
    header = ("Run", *METRICS.values(), *deviations, "Steps", "Tokens", "Tokens by task", "Passes")
    numeric = (False, *[True] * (len(header) - 1))
    bold = highest(cells, range(1, 5))
    return Table("Dev scores and amount of training.", header, cells, notes, numeric, "scores", bold)


def passes(training: Mapping[str, Any]) -> dict[str, float]:
    """How often each dataset was passed over, from the section `training` of metrics.json."""
    size = training["batch_size"]
    return {task: count / -(-training["sizes"][task] // size) for task, count in training["batches"].items()}


def _over_seeds(statistics: Statistics, run: str) -> list[str]:
    found = statistics.seeds.get(run, {})
    return [number(found[metric].sd if metric in found else None) for metric in METRICS]


def pairs(_: Path, rows: Rows, statistics: Statistics) -> Table:
    """The difference of every two runs, the second minus the first: its interval, corrected p and what would have shown."""
    titles = {run: row for row, run in rows.items()}
    cells, bold = [], []
    adjusted = {metric: statistics.adjusted(titles, metric) for metric in METRICS}
    for place, (first, second) in enumerate(combinations(titles, 2)):
        parts: list[str] = []
        for column, metric in enumerate(METRICS):
            found, p = statistics.difference(first, second, metric), adjusted[metric].get((first, second))
            smallest = statistics.detectable(first, second, metric)
            parts += [estimate(*found[:3]), "–" if p is None else probability(p), number(smallest)]
            if p is not None and p < SIGNIFICANT:
                bold.append((place, 2 + 3 * column))
        cells.append((titles[first], titles[second], *parts))
    notes = [
        "Second minus first, on the same development examples. p: whether the true difference is zero, tested "
        f"{tests_of(METRICS)}, with Holm's correction over the pairs of a column. Bold: p below {SIGNIFICANT:.2f}.",
        DETECTABLE,
        interval_note(statistics),
        *seed_notes(statistics, titles, METRICS),
    ]
    parts_of = ("difference", "p", "detectable")
    header = ("First", "Second", *(f"{title}: {part}" for title in METRICS.values() for part in parts_of))
    numeric = (False, False, *[True] * 3 * len(METRICS))
    return Table("Paired differences.", header, cells, notes, numeric, "pairs", bold)


def training(folder: Path, titles: Mapping[str, str], times: Mapping[str, Mapping[str, Any]]) -> Table:
    """The steps and tokens of each run's training, and its seconds and machine if it was trained here.

    Args:
        folder: the results folder.
        titles: what the table calls each run.
        times: by run, what training logged on this machine (seconds, machine); a run may be missing.
    """
    cells: list[tuple[str, ...]] = []
    for run, title in titles.items():
        amount, log = results.metrics(folder, run)["training"], times.get(run, {})
        device = results.record(folder, run)["device"]
        seconds = f"{log['seconds']:,.0f}" if log else "–"
        cells.append((title, f"{amount['steps']:,}", f"{amount['tokens']:,}", seconds, device, log.get("machine", "–")))
    notes = [
        "Seconds of training, with the dev metrics after each epoch; if a run was killed and resumed, without the time from its last "
        "checkpoint to the kill. They and the machine are logged where a run is trained; – is a run trained elsewhere. Commits, "
        "dates and settings are in `provenance.json`."
    ]
    header = ("Run", "Steps", "Tokens", "Seconds", "Device", "Machine")
    numeric = (False, True, True, True, False, False)
    return Table("Amount and time of training.", header, cells, notes, numeric, "training")


TABLES = {"scores": scores, "pairs": pairs}
