"""The runs on the page: what each of them changes, its scores and its cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtbert.evaluation.metrics import metric_of
from mtbert.evaluation.resampling import deviation
from mtbert.report.grid import Cell, Column, Grid
from mtbert.report.provenance import UNTIMED
from mtbert.report.results import dotted
from mtbert.report.statistics import FEWEST_SEEDS, OVERALL, Statistics
from mtbert.report.text import number, setting
from mtbert.tasks.task import Task

METRIC_TITLES = {"accuracy": "accuracy", "pearson": "Pearson’s r"}
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Runs:
    """The runs on the page.

    Attributes:
        folder: the results folder.
        metrics, records: metrics.json and record.json of each run, in the order of the page.
        predecessors: the run that each run's `from` names, where it has one.
        times: by run, what training logged on this machine (seconds, commit, machine, finished); a run may be missing.
    """

    folder: Path
    metrics: Facts
    records: Facts
    predecessors: Mapping[str, str]
    times: Facts
    statistics: Statistics

    @property
    def best(self) -> str:
        """The run with the highest overall score; the first if none has one."""
        return max(self.metrics, key=lambda run: self.metrics[run]["dev"].get(OVERALL) or 0)

    def score(self, run: str, metric: str) -> Cell:
        """A dev score with its interval."""
        value, low, high = self.statistics.metric(run, metric)
        interval = "" if low is None else f"{number(low)} to {number(high)}".replace(" ", "\N{NO-BREAK SPACE}")
        return Cell(number(value), interval)


def runs_grid(runs: Runs, tasks: Mapping[str, Task]) -> Grid:
    """What each run changes, its dev scores on the tasks that it has a head for, its size and its training.

    Args:
        tasks: all tasks, by name.
    """
    settings = {run: dotted(record.get("settings", {})) for run, record in runs.records.items()}

    def scores(metric: str) -> list[Cell]:
        cells = [runs.score(run, metric) for run in runs.metrics]
        highest = max((cell.text for cell in cells if cell.text != number(None)), key=float, default="")
        return [cell._replace(best=cell.text == highest) for cell in cells]

    def changed(run: str) -> Cell:
        before = runs.predecessors.get(run)
        return Cell(f"{before}, but" if before else "", items=changes(settings[run], settings.get(before or "", {})))

    def trained(run: str) -> Cell:
        counts = runs.metrics[run]["parameters"]
        share, alone = f"{counts['trainable'] / counts['total']:.1%}", counts["adapters_only"]
        return Cell(f"{counts['trainable']:,}", share if alone is None else f"{share}; heads and adapter {alone:,}")

    def steps(run: str) -> Cell:
        training = runs.metrics[run]["training"]
        return Cell(f"{training['steps']:,}", f"{training['tokens']:,}\N{NO-BREAK SPACE}tokens")

    def time(run: str) -> Cell:
        return Cell(f"{runs.times[run]['seconds']:,.0f} s" if run in runs.times else UNTIMED)

    columns = [
        Column("Run", [Cell(run) for run in runs.metrics]),
        Column("Settings", [changed(run) for run in runs.metrics]),
        *(Column(title, scores(metric), True, "Dev score") for metric, title in _titles(runs, tasks).items()),
        Column("Parameters trained", [trained(run) for run in runs.metrics], True),
        Column("Steps", [steps(run) for run in runs.metrics], True),
        Column("Training time", [time(run) for run in runs.metrics], True),
    ]
    notes = [
        "A score's small numbers are its 95% interval over other examples, not over seeds. Training time includes the dev metrics "
        "after each epoch. If a run was killed and resumed, the time from its last checkpoint to the kill is not counted. The time "
        "is recorded only on the machine that trained the run."
    ]
    return Grid(columns, notes)


def seeds_grid(runs: Runs, tasks: Mapping[str, Task]) -> Grid | None:
    """The scores of runs that differ in their seed alone, a row for the first of each; None if there are none."""
    over = runs.statistics.seeds
    if not over:
        return None

    def cell(run: str, metric: str) -> Cell:
        found = over[run].get(metric)
        if found is None or found.mean is None:
            return Cell(number(None))
        assert found.sd is not None
        _, low, high = deviation(found.sd, found.runs)
        below = f"SD {number(low)} to {number(high)}; seed: {found.shown_share or number(None)}"
        return Cell(f"{number(found.mean)} ± {number(found.sd)}", below.replace(" ", "\N{NO-BREAK SPACE}"))

    columns = [
        Column("Run", [Cell(run) for run in over]),
        Column("Seeds", [Cell(str(max(found.runs for found in over[run].values()))) for run in over], True),
        *(
            Column(title, [cell(run, metric) for run in over], True, "Dev score")
            for metric, title in _titles(runs, tasks).items()
        ),
    ]
    notes = [
        "Mean ± standard deviation over runs that differ in their seed alone. Below, the standard deviation's 95% interval if "
        "scores are normally distributed, and the seed's share of the variance of one run's score; the rest is due to the choice of "
        f"examples, which moves all seeds alike. Fewer than {FEWEST_SEEDS} seeds say too little about the share, so it is left out."
    ]
    return Grid(columns, notes, "Scores over seeds")


def _titles(runs: Runs, tasks: Mapping[str, Task]) -> dict[str, str]:
    """What the page calls each metric that a run has: the overall score and the tasks."""
    return {OVERALL: OVERALL} | {
        name: task.title for name, task in tasks.items() if any(name in found["dev"] for found in runs.metrics.values())
    }


def declared_grid(runs: Runs, tasks: Mapping[str, Task]) -> Grid | None:
    """The runs' scores on the tasks declared in params.yaml; None if there are none."""
    rows: dict[str, list[Cell]] = {}
    for task in tasks.values():
        for run, found in runs.metrics.items():
            if task.course is not None or task.name not in found["dev"]:
                continue
            dev, test = (found[split].get(task.name) for split in ("dev", "test"))
            for name, cell in {
                "Task": Cell(task.title),
                "Run": Cell(run),
                "Trained on it": Cell("yes" if task.name in found["training"]["tasks"] else "no"),
                "Measure": Cell(METRIC_TITLES[metric_of(dev)]),
                "Dev": runs.score(run, task.name),
                "Examples": Cell(f"{dev['n']:,}"),
                "Majority class": Cell(number(dev.get("majority"))),
                "Test": Cell(number(test[metric_of(test)] if test else None)),
            }.items():
                rows.setdefault(name, []).append(cell)
    numeric = ("Dev", "Examples", "Majority class", "Test")
    return Grid([Column(name, cells, name in numeric) for name, cells in rows.items()]) if rows else None


def changes(settings: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """The settings, by dotted key, that differ from the predecessor's, as `key: value`, or as `no key`."""
    new = [
        f"{key}: {setting(value)}" for key, value in settings.items() if before.get(key) != value and value is not None
    ]
    return new + [f"no {key}" for key, value in before.items() if value is not None and settings.get(key) is None]
