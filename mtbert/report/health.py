"""The data's health on the page: what `prepare` read, left out and found twice, and how labels and lengths are distributed."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtbert.report.grid import Cell, Column, Grid
from mtbert.tasks.task import Task

LISTED = 20  # malformed rows


def health_grid(report: Mapping[str, Any], tasks: Mapping[str, Task]) -> Grid:
    """A row for each split.

    Args:
        report: prepare's report.
        tasks: the tasks to show, by name; the report may have some that are no longer declared.
    """
    shown = {task: splits for task, splits in report["tasks"].items() if task in tasks}
    rows = [(task, split, found) for task, splits in shown.items() for split, found in splits.items()]

    def column(name: str, show: Any, numeric: bool = True) -> Column:
        cells = [show(task, found) if found["present"] else Cell("–") for task, _, found in rows]
        return Column(name, cells, numeric)

    def leaked(task: str, found: Mapping[str, Any]) -> Cell:
        if "leaked" not in found:
            return Cell("–")
        removed = found["leaked"]["removed"]
        return Cell(f"{found['leaked']['rows']:,}", "removed" if removed else "kept" if found["leaked"]["rows"] else "")

    columns = [
        Column("Split", [Cell(f"{task}, {split}") for task, split, _ in rows]),
        column("Rows read", lambda _, found: Cell(f"{found['rows_read']:,}")),
        column("Kept", lambda _, found: Cell(f"{found['rows_kept']:,}")),
        column("Malformed", lambda _, found: Cell(f"{found['bad_rows']['count']:,}")),
        column("Repeated", lambda _, found: Cell(f"{found['repeated']['sentences']:,}")),
        column("Also in dev or test", leaked),
        column(
            "Wordpieces per sentence",
            lambda _, found: Cell(f"{found['wordpieces']['mean']:.1f}", f"at most {found['wordpieces']['longest']:,}"),
        ),
        column("Cut", lambda _, found: Cell(f"{found['over_long']['sequences']:,}")),
        column("Labels", lambda task, found: Cell("", shares=_shares(tasks[task], found["labels"])), numeric=False),
    ]
    settings = report["settings"]
    notes = [
        f"Cut: sequences of more than `max_tokens: {settings['max_tokens']}`. Malformed rows: `on_bad_row: {settings['on_bad_row']}`; "
        f"training rows that are also in dev or test: `leakage: {settings['leakage']}`. Labels: the share of each, from the lowest; "
        "scores are rounded.",
    ]
    return Grid(columns, notes)


def malformed(report: Mapping[str, Any]) -> list[str]:
    """The first malformed rows that were left out: where, and what is wrong."""
    present = [found for splits in report["tasks"].values() for found in splits.values() if found["present"]]
    return [f"{row['where']}: {row['what']}" for found in present for row in found["bad_rows"]["listed"]][:LISTED]


def _shares(task: Task, labels: Mapping[str, int] | None) -> Sequence[tuple[str, float]]:
    """The share of each label, under its name."""
    total = sum(labels.values()) if labels else 0
    if not labels or not total:
        return []
    return [(name, count / total) for name, count in zip(task.labels or labels, labels.values(), strict=True)]
