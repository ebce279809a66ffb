"""The runs on the page: what each of them changes, its scores and its cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtbert.report.grid import Cell, Column, Grid
from mtbert.report.provenance import UNTIMED
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.report.text import number
from mtbert.tasks.task import Task

METRIC_TITLES = {"accuracy": "accuracy", "pearson": "Pearson’s r"}
Facts = Mapping[str, Mapping[str, Any]]


def runs_grid(
    metrics: Facts,
    records: Facts,
    predecessors: Mapping[str, str],
    times: Facts,
    tasks: Mapping[str, Task],
    statistics: Statistics,
) -> Grid:
    """What each run changes, its dev scores on the tasks that it has a head for, its size and its training.

    Args:
        metrics, records: metrics.json and record.json of each run.
        predecessors: of each run that has one.
        times: see `page`.
        tasks: all tasks, by name.
    """
    settings = {run: flat(record.get("settings", {})) for run, record in records.items()}
    known = [name for name in tasks if any(name in found["dev"] for found in metrics.values())]
    best = {
        name: max((value for run in metrics if (value := statistics.metric(run, name).value) is not None), default=None)
        for name in (OVERALL, *known)
    }

    def score(run: str, name: str) -> Cell:
        cell = _score(statistics, run, name)
        return cell._replace(best=cell.text == number(best[name]) != number(None))

    def changed(run: str) -> Cell:
        before = predecessors.get(run)
        return Cell(f"{before}, but" if before else "", items=changes(settings[run], settings.get(before or "", {})))

    def trainable(run: str) -> Cell:
        parameters = metrics[run]["parameters"]
        share = f"{parameters['trainable'] / parameters['total']:.1%}"
        alone = parameters["adapters_only"]
        return Cell(f"{parameters['trainable']:,}", share + ("" if alone is None else f"; heads and adapter {alone:,}"))

    def steps(run: str) -> Cell:
        training = metrics[run]["training"]
        return Cell(f"{training['steps']:,}", f"{training['tokens']:,}\N{NO-BREAK SPACE}tokens")

    time = [Cell(f"{times[run]['seconds']:,.0f} s" if run in times else UNTIMED) for run in metrics]
    columns = [
        Column("Run", "", False, [Cell(run) for run in metrics]),
        Column("Settings", "", False, [changed(run) for run in metrics]),
        Column("overall", "Dev score", True, [score(run, OVERALL) for run in metrics]),
        *(Column(tasks[name].title, "Dev score", True, [score(run, name) for run in metrics]) for name in known),
        Column("Parameters trained", "", True, [trainable(run) for run in metrics]),
        Column("Steps", "", True, [steps(run) for run in metrics]),
        Column("Training time", "", True, time),
    ]
    notes = [
        "A score's small numbers are its 95% interval over other examples, not over seeds. Training time includes the dev metrics "
        "after each epoch. If a run was killed and resumed, the time from its last checkpoint to the kill is not counted. The time "
        "is recorded only on the machine that trained the run."
    ]
    return Grid("", columns, notes)


def declared_grid(metrics: Facts, tasks: Mapping[str, Task], statistics: Statistics) -> Grid | None:
    """The runs' scores on the tasks declared in params.yaml; None if there are none."""
    rows = [
        (task.title, run, found, found["dev"][task.name])
        for task in tasks.values()
        for run, found in metrics.items()
        if task.course is None and task.name in found["dev"]
    ]
    if not rows:
        return None

    def column(name: str, numeric: bool, cells: Sequence[Cell]) -> Column:
        return Column(name, "", numeric, cells)

    columns = [
        column("Task", False, [Cell(task) for task, *_ in rows]),
        column("Run", False, [Cell(run) for _, run, *_ in rows]),
        column(
            "Trained on it",
            False,
            [Cell("yes" if task in found["training"]["tasks"] else "no") for task, _, found, _ in rows],
        ),
        column(
            "Measure",
            False,
            [Cell(next(title for name, title in METRIC_TITLES.items() if name in dev)) for *_, dev in rows],
        ),
        column("Dev", True, [_score(statistics, run, task) for task, run, *_ in rows]),
        column("Examples", True, [Cell(f"{dev['n']:,}") for *_, dev in rows]),
        column("Majority class", True, [Cell(number(dev.get("majority"))) for *_, dev in rows]),
        column("Test", True, [Cell(number(_value(found["test"].get(task, {})))) for task, _, found, _ in rows]),
    ]
    return Grid("", columns)


def _score(statistics: Statistics, run: str, metric: str) -> Cell:
    """A dev score with its interval."""
    value, low, high = statistics.metric(run, metric)
    return Cell(
        number(value), "" if low is None else f"{number(low)} to {number(high)}".replace(" ", "\N{NO-BREAK SPACE}")
    )


def _value(entry: Mapping[str, Any]) -> float | None:
    """The metric in a task's entry of metrics.json; None if it is undefined or the split has no labels."""
    return next((entry[name] for name in METRIC_TITLES if name in entry), None)


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """The settings by dotted key, as in params.yaml; those that are null are left out."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        elif value is not None:
            found[above + key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {key: {"True": "true", "False": "false"}.get(value, value) for key, value in found.items()}


def changes(settings: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """The keys that differ from those of the predecessor, with their values."""
    new = [f"{key}: {value}" for key, value in settings.items() if before.get(key) != value]
    return new + [f"no {key}" for key in before if key not in settings]
