"""The error analysis as the page shows it: for each run a panel of findings, charts and tables, then what compares runs."""

from collections.abc import Collection, Mapping, Sequence
from math import isnan
from typing import NamedTuple

from mtbert.evaluation.calibration import Bin
from mtbert.evaluation.ordinal import Ordinal
from mtbert.evaluation.slices import Contrast
from mtbert.report.error_analysis import LabelNoise, TaskErrors
from mtbert.report.error_findings import agreement_finding, findings, interval, noise_finding
from mtbert.report.grid import Cell, Column, Grid
from mtbert.report.significance import SIGNIFICANT
from mtbert.report.text import number, probability

SIZE = 150  # of a chart, in units of the picture
LISTED = 20  # labels that runs contradict


class Calibrated(NamedTuple):
    """A reliability diagram, or for scores the mean label by prediction; both axes have one range.

    Attributes:
        points: (x, y, highest y, lowest y, words) of each bin; y grows downwards.
        ends: the labels of both axes' ends.
        axes: what the axes show, x and y.
    """

    points: Sequence[tuple[float, float, float, float, str]]
    ends: tuple[str, str]
    axes: tuple[str, str]


class Panel(NamedTuple):
    """A run on a task."""

    run: str
    title: str
    findings: Sequence[str]
    chart: Calibrated
    tables: Sequence[Grid]


class Compared(NamedTuple):
    """What compares the runs on a task: sentences and a table."""

    title: str
    finding: str
    table: Grid


def panels(analysis: Mapping[str, TaskErrors], ranges: Mapping[str, tuple[float, float]]) -> list[Panel]:
    """A panel for each run and task.

    Args:
        ranges: the lowest and highest label, by task.
    """
    found = []
    for name, task in analysis.items():
        sentences = findings(task)
        for run, about in task.runs.items():
            if about.calibration:
                chart = _chart(about.calibration.bins, (0.0, 1.0), ("Confidence", "Accuracy"))
            else:
                assert about.line is not None
                chart = _chart(about.line.bins, ranges[name], ("Predicted", "Mean label"))
            measure = "Error rate" if about.calibration else "Distance from line"
            tables = [_slices(about.slices, measure)] if about.slices else []
            tables += [_distances(about.ordinal)] if about.ordinal else []
            found.append(Panel(run, task.title, sentences[run], chart, tables))
    return found


def agreement(analysis: Mapping[str, TaskErrors], runs: Collection[str]) -> list[Compared]:
    """The agreement of these runs on each task."""
    found = []
    for task in analysis.values():
        shown = [run for run in runs if run in task.runs]
        if len(shown) > 1:
            found.append(Compared(task.title, agreement_finding(task), _agreement(task, shown)))
    return found


def contradicted(analysis: Mapping[str, TaskErrors]) -> list[Compared]:
    """The labels that runs contradict, of each task that has some."""
    return [
        Compared(task.title, noise_finding(task.noise, task.examples), _noise(task.noise))
        for task in analysis.values()
        if task.noise and task.noise.candidates
    ]


def _chart(bins: Sequence[Bin], ends: tuple[float, float], axes: tuple[str, str]) -> Calibrated:
    low, high = ends

    def place(value: float) -> float:
        return SIZE * min(1.0, max(0.0, (value - low) / (high - low)))

    points = []
    for part in bins:
        value, *around = part.observed
        least, most = (value if isnan(end) else end for end in around)
        words = f"{axes[0].lower()} {number(part.predicted, 2)}, {axes[1].lower()} {interval(part.observed)}, {part.examples} examples"
        y, top, bottom = (SIZE - place(end) for end in (value, most, least))
        points.append((place(part.predicted), y, top, bottom, words))
    return Calibrated(points, (f"{low:g}", f"{high:g}"), axes)


def _slices(found: Sequence[Contrast], measure: str) -> Grid:
    adjusted = [part.adjusted for part in found]
    columns = [
        Column("Examples", [Cell(part.name) for part in found]),
        Column("Number", [Cell(f"{part.examples:,}") for part in found], True),
        Column(measure, [_measured(part.error) for part in found], True),
        Column("Difference to the rest", [_measured(part.difference, "+.3f") for part in found], True),
        Column("p, corrected", [Cell(probability(p), best=p < SIGNIFICANT) for p in adjusted], True),
    ]
    return Grid(columns)


def _distances(found: Ordinal) -> Grid:
    shares = [Column(str(distance), [Cell(f"{share:.1%}")], True) for distance, share in enumerate(found.distances)]
    return Grid([Column("Classes away", [Cell("Share of predictions")]), *shares])


def _agreement(task: TaskErrors, runs: Sequence[str]) -> Grid:
    """The lower triangle: in a cell's first line how alike predictions are, in its second how alike errors are."""
    columns = [Column("", [Cell(run) for run in runs[1:]])]
    for place, first in enumerate(runs[:-1]):
        cells = []
        for second in runs[1:]:
            how = task.agreement.get((first, second)) or task.agreement.get((second, first))
            if runs.index(second) <= place or how is None:
                cells.append(Cell(""))
            else:
                cells.append(Cell(_number(how.predictions.value), f"errors {_number(how.errors.value)}"))
        columns.append(Column(first, cells, True))
    kind = "Pearson’s r" if any(found.line for found in task.runs.values()) else "Cohen’s kappa"
    note = (
        f"First line of a cell: {kind} of predictions; second: the correlation of errors, 0 if they are independent. Their intervals are in "
        "`errors.json`."
    )
    return Grid(columns, [note])


def _noise(noise: LabelNoise) -> Grid:
    chosen = noise.candidates[:LISTED]
    columns = [
        Column("", [Cell(str(place)) for place in range(1, len(chosen) + 1)]),
        Column("Pair", [Cell(" | ".join(one.texts)) for one in chosen]),
        Column("Label", [Cell(one.label) for one in chosen]),
        Column("Runs against it", [Cell(f"{one.runs} of {len(noise.runs)}") for one in chosen], True),
        Column("Probability of the other label", [Cell(number(one.probability, 2)) for one in chosen], True),
    ]
    rest = len(noise.candidates) - len(chosen)
    return Grid(columns, [f"{rest:,} more are in `errors.json`, by id."] if rest else [])


def _measured(found: tuple[float, float, float], digits: str = ".3f") -> Cell:
    value, low, high = (f"{end:{digits}}".replace("-", "−") for end in found)
    return Cell(value, f"{low} to {high}".replace(" ", "\N{NO-BREAK SPACE}"))


def _number(value: float) -> str:
    return number(value, 2).replace("-", "−")
