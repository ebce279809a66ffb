"""Tables for any study: the scores of its runs with what each was trained on, and paired differences of runs.

Each function takes the results folder, the table's rows from params.yaml, {row: run}, and the statistics of the runs, as those of
`mtbert.report.tables`. Rows are titled by their keys.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from mtbert.report import results
from mtbert.report.rows import Rows, nonempty
from mtbert.report.significance import SIGNIFICANT, interval_note, tests_of
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.report.tables import highest, score
from mtbert.report.text import Estimate, Table, number, probability
from mtbert.tasks.paper import METRIC_OF, QUORA, SST, STS

METRICS = {OVERALL: "Overall", SST.name: "Sentiment", QUORA.name: "Paraphrase", STS.name: "STS"}


def scores(folder: Path, rows: Rows, statistics: Statistics) -> Table:
    """Dev scores of the runs, their steps and tokens, and how often each dataset was passed over."""
    cells: list[tuple[str, ...]] = []
    for row, run in nonempty(rows, "tables.scores").items():
        found = results.metrics(folder, run)
        dev, training = results.scores(found["dev"]), found["training"]
        of_tasks = (f"{count:,}" for count in training["tokens_of_tasks"].values())
        cells.append(
            (
                row,
                *(score(statistics, run, metric, dev[metric]) for metric in (OVERALL, *METRIC_OF)),
                f"{training['steps']:,}",
                f"{training['tokens']:,}",
                " / ".join(of_tasks),
                " / ".join(number(count, 2) for count in passes(training).values()),
            )
        )
    tasks = ", ".join(dict.fromkeys(task for run in rows.values() for task in _trained(folder, run)))
    notes = [
        f"Tokens by task and passes are of {tasks}, as far as the run trains on them. A pass is as many batches as the dataset has; "
        "special tokens count. Bold: the highest.",
        interval_note(statistics),
    ]
    header = ("Run", *METRICS.values(), "Steps", "Tokens", "Tokens by task", "Passes")
    numeric = (False, *[True] * 8)
    return Table(
        "Dev scores and amount of training.", header, cells, notes, numeric, "scores", highest(cells, range(1, 5))
    )


def passes(training: Mapping[str, Any]) -> dict[str, float]:
    """How often each dataset was passed over, from the section `training` of metrics.json."""
    size = training["batch_size"]
    return {task: count / -(-training["sizes"][task] // size) for task, count in training["batches"].items()}


def _trained(folder: Path, run: str) -> list[str]:
    return list(results.metrics(folder, run)["training"]["tasks"])


def pairs(_: Path, rows: Rows, statistics: Statistics) -> Table:
    """The difference of every two runs, the second minus the first, with its interval and corrected p."""
    titles = {run: row for row, run in nonempty(rows, "tables.pairs").items()}
    cells, bold = [], []
    for place, (first, second) in enumerate(combinations(titles, 2)):
        parts: list[str] = []
        for column, metric in enumerate(METRICS):
            found = statistics.difference(first, second, metric, titles)
            if found.value is None or found.low is None or found.high is None or found.adjusted is None:
                parts += ["–", "–"]
                continue
            parts += [Estimate(found.value, found.low, found.high), probability(found.adjusted)]
            if found.adjusted < SIGNIFICANT:
                bold.append((place, 2 + 2 * column))
        cells.append((titles[first], titles[second], *parts))
    notes = [
        "Second minus first, on the same development examples. p: whether the true difference is zero, tested "
        f"{tests_of(METRICS)}, with Holm's correction over the pairs of a column. Bold: p below {SIGNIFICANT:.2f}.",
        interval_note(statistics),
    ]
    header = ("First", "Second", *(f"{title}: {part}" for title in METRICS.values() for part in ("difference", "p")))
    numeric = (False, False, *[True] * 2 * len(METRICS))
    return Table("Paired differences.", header, cells, notes, numeric, "pairs", bold)


TABLES = {"scores": scores, "pairs": pairs}
