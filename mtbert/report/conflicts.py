"""Figure of the conflicts between the tasks' gradients over training (Yu et al. 2020), from what runs with `measure_conflicts` measured.

Functions are as in `mtbert.report.figures`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from mtbert.report import results
from mtbert.report.figures import GREY, Figure
from mtbert.report.results import Rows
from mtbert.report.statistics import Statistics

WHOLE = "all"  # the layer that stands for all of them, as mtbert/training/conflicts.py writes it


def conflicts(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """Cosines of the tasks' gradients over training, a panel per run and pair of tasks with a line per layer; and for each run a panel
    with the share of the layers in conflict.
    """
    return drawn({row: results.conflicts(folder, run) for row, run in rows.items()})


def drawn(found: Mapping[str, pd.DataFrame]) -> Figure:
    """The figure of the measurements of some rows, as `results.conflicts` returns them."""
    panels, texts = [], []
    for row, table in found.items():
        share = float((_layers(table)["cosine"] < 0).mean())
        texts.append(f"{share:.0%} in {row}")
        of_row = f"{row}: " if len(found) > 1 else ""
        for pair, measured in table.groupby(["first", "second"], sort=False):
            panels.append((of_row + " and ".join(pair), partial(_cosines, measured)))
        panels.append((f"{of_row}layers in conflict", partial(_shares, table)))
    data = pd.concat(table.assign(run=row) for row, table in found.items())
    caption = (
        "Cosine between the gradients of two tasks over training, a line per layer, each gradient on a batch of its own; below "
        "0 the tasks conflict. On the right, the share of the layers in which they do; it is about a half if the cosines lie around 0. Of all "
        f"layers, pairs and measurements, these conflict: {', '.join(texts)}."
    )
    return Figure(caption, panels, data[["run", *data.columns.drop("run")]], (4.2, 3.4))


def _layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of single layers in which both gradients are more than zero."""
    return table[(table["layer"] != WHOLE) & table["cosine"].notna()]


def _cosines(measured: pd.DataFrame, axes: Axes) -> None:
    layers = _layers(measured)
    names = list(dict.fromkeys(layers["layer"]))
    axes.axhline(0, color=GREY, linewidth=0.8)
    for place, name in enumerate(names):
        line: Any = layers[layers["layer"] == name]
        colour = matplotlib.colormaps["viridis"](0.9 * place / max(1, len(names) - 1))
        label = f"layer {name}" if name.isdecimal() else name
        axes.plot(line["step"], line["cosine"], "-", color=colour, linewidth=1.2, label=label)
    axes.set(xlabel="Step", ylabel="Cosine", ylim=(-1.05, 1.05))
    axes.legend(fontsize=6, ncols=2)


def _shares(table: pd.DataFrame, axes: Axes) -> None:
    axes.axhline(0.5, color=GREY, linewidth=0.8)
    for place, (pair, measured) in enumerate(table.groupby(["first", "second"], sort=False)):
        layers = _layers(measured)
        share = (layers["cosine"] < 0).groupby(layers["step"]).mean()
        colour = matplotlib.colormaps["tab10"](place)
        axes.plot(share.index, share, ".-", color=colour, linewidth=0.8, markersize=4, label=" and ".join(pair))
    axes.set(xlabel="Step", ylabel="Share of the layers", ylim=(-0.05, 1.3), yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.legend(fontsize=6, ncols=3, loc="upper center")


FIGURES = {"conflicts": conflicts}
