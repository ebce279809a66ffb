"""Figure of the conflicts between the tasks' gradients over training (Yu et al. 2020), from what runs with `measure_conflicts` measured.

Functions are as in `mtbert.report.figures`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from mtbert.report import results
from mtbert.report.figures import GREY, Figure
from mtbert.report.rows import Rows, nonempty
from mtbert.report.statistics import Statistics

WHOLE = "all"  # the layer that stands for all of them, as mtbert/training/conflicts.py writes it


def conflicts(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """Cosines of the tasks' gradients over training, a line per layer and the share of layers in conflict; a panel per run and
    pair of tasks.
    """
    found = {row: results.conflicts(folder, run) for row, run in nonempty(rows, "figures.conflicts").items()}
    panels, texts = [], []
    for row, table in found.items():
        share = float((_layers(table)["cosine"] < 0).mean())
        texts.append(f"{share:.0%} in {row}")
        for pair, measured in table.groupby(["first", "second"], sort=False):
            title = " and ".join(pair)
            panels.append((f"{row}: {title}" if len(found) > 1 else title, partial(_draw, measured)))
    data = pd.concat(table.assign(run=row) for row, table in found.items())
    caption = (
        "Cosine between the gradients of two tasks over training, a line per layer, each gradient on a batch of its own; below "
        "0 the tasks conflict. The dots are the share of the layers in which they do. Of all layers, pairs and measurements, "
        f"these conflict: {', '.join(texts)}."
    )
    return Figure(caption, panels, data[["run", *data.columns.drop("run")]], (4.2, 3.4))


def _layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of single layers in which both gradients are more than zero."""
    return table[(table["layer"] != WHOLE) & table["cosine"].notna()]


def _draw(measured: pd.DataFrame, axes: Axes) -> None:
    layers = _layers(measured)
    names = list(dict.fromkeys(layers["layer"]))
    axes.axhline(0, color=GREY, linewidth=0.8)
    for place, name in enumerate(names):
        line: Any = layers[layers["layer"] == name]
        colour = matplotlib.colormaps["viridis"](0.9 * place / max(1, len(names) - 1))
        label = f"layer {name}" if name.isdecimal() else name
        axes.plot(line["step"], line["cosine"], "-", color=colour, linewidth=1.2, label=label)
    share = (layers["cosine"] < 0).groupby(layers["step"]).mean()
    axes.plot(share.index, share, ".", color="black", markersize=4, label="share in conflict")
    axes.set(xlabel="Step", ylabel="Cosine", ylim=(-1.05, 1.05))
    axes.legend(fontsize=6, ncols=2)


FIGURES = {"conflicts": conflicts}
