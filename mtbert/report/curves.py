"""Learning curves of the runs: the scores after each epoch, as the points of a small chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mtbert.report import results
from mtbert.report.text import number
from mtbert.tasks.paper import CURVE
from mtbert.tasks.task import Task

WIDTH, HEIGHT = 200, 110  # of a chart, in units of the picture


class Line(NamedTuple):
    """A line of a chart: its title, the number that selects its look, and its points (x, y, epoch, score)."""

    title: str
    look: int
    points: Sequence[tuple[float, float, int, float]]


class Chart(NamedTuple):
    """The learning curves of a run.

    Attributes:
        levels: labelled heights, (label, y).
        epochs: the number of the last one.
        description: in words, where each line begins and ends.
    """

    run: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]]
    epochs: int
    description: str


def charts(folder: Path, runs: Sequence[str], tasks: Mapping[str, Task]) -> list[Chart]:
    """A chart for each run, all on the same scale: from 0, or from the lowest score if one is negative, to 1.

    Args:
        folder: the results folder.
        tasks: all tasks, by name.

    Raises:
        MtbertError: a history is missing or damaged.
    """
    titles = {f"dev_{name}": task.title for name, task in tasks.items()} | {
        f"train_{CURVE.name}": f"{CURVE.title}, train"
    }
    histories = {run: results.history(folder, run) for run in runs}
    scores = [history[[name for name in titles if name in history]].min(axis=None) for history in histories.values()]
    return [_chart(run, history, titles, min(0.0, *scores)) for run, history in histories.items()]


def _chart(run: str, history: pd.DataFrame, titles: Mapping[str, str], lowest: float) -> Chart:
    last = max(1, int(history["epoch"].max()))
    lines, ends = [], []
    for look, (column, title) in enumerate(titles.items()):
        found = history.dropna(subset=column) if column in history else history[:0]
        if found.empty:
            continue
        points = [
            (WIDTH * epoch / last, HEIGHT * (1 - score) / (1 - lowest), int(epoch), float(score))
            for epoch, score in zip(found["epoch"], found[column], strict=True)
        ]
        lines.append(Line(title, look, points))
        ends.append(f"{title} {number(points[0][3])} to {number(points[-1][3])}")
    levels = [(f"{level:g}", HEIGHT * (1 - level) / (1 - lowest)) for level in (0, 0.5, 1)]
    return Chart(run, lines, levels, last, f"{run}, over {last} epochs: {'; '.join(ends)}")
