"""Figures 1 to 4 (section 6) from the results of the runs: a picture, and the table of what is drawn.

Each function takes the folder of results and the figure's rows as params.yaml names them, {row: run}; a row that the paper does
not have is called by its key. Equal results give equal bytes: no dates, no random ids, fonts as outlines.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtbert.errors import MtbertError
from mtbert.evaluation.analysis import confusion, normalised, residuals
from mtbert.files import atomic_write_bytes
from mtbert.report import paper, results
from mtbert.tabular import write_csv
from mtbert.tasks.paper import CURVE, SST, STS

# Okabe and Ito's colours, told apart by colour-blind readers and in print.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "mtbert",
    "svg.fonttype": "path",
}


TRAIN, DEV = f"train_{CURVE.name}", f"dev_{CURVE.name}"  # columns of history.csv
MEASURES = ("trainable_parameters", "overall")
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
Rows = Mapping[str, str]


class Drawn(NamedTuple):
    """A figure: its caption, what to draw for each of its rows (a title and a function of axes), and the same as a table."""

    caption: str
    panels: Sequence[tuple[str, Callable[[Axes], None]]]
    data: pd.DataFrame
    size: tuple[float, float]


def figure1(folder: Path, rows: Rows) -> Drawn:
    """Sentiment confusion, normalised by true label; a panel per row."""
    names = [f"{level} {name}" for level, name in enumerate(paper.SENTIMENTS)]
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    tables, caption = [], "Figure 1: Sentiment confusion matrix, normalised by true label, with counts below."
    for row, run in _some(rows, "figure1").items():
        table = results.examples(folder, run, SST.name)
        counts = confusion(table["label"].to_numpy(), table["prediction"].to_numpy(), len(names))
        shares = normalised(counts)
        panels.append((paper.title(row), partial(_matrix, counts, shares, names)))
        tables += [
            {"model": paper.title(row), "actual": names[actual], "predicted": names[predicted], "share": share}
            | {"count": counts[actual, predicted]}
            for (actual, predicted), share in np.ndenumerate(shares)
        ]
        if row == paper.BEST and not np.isnan(shares[2]).any():
            lower, higher = shares[2, 1], shares[2, 3]
            told = f"Of the neutral sentences {lower:.0%} are taken for 1 and {higher:.0%} for 3 (paper: 24% and 32%)."
            caption += _sentence(row, rows, told)
    return Drawn(caption, panels, pd.DataFrame(tables), (4.8, 4.6))


def _matrix(counts: np.ndarray, shares: np.ndarray, names: list[str], axes: Axes) -> None:
    axes.grid(False)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        told = "–" if np.isnan(share) else f"{share:.0%}"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row - 0.1, told, ha="center", va="center", color=colour, fontsize=10)
        axes.text(column, row + 0.22, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=7)
    lines = [name.replace(" ", "\n") for name in names]
    axes.set_xticks(range(len(names)), lines, fontsize=8)
    axes.set_yticks(range(len(names)), lines, fontsize=8)
    axes.tick_params(length=0)
    axes.set(xlabel="Predicted label", ylabel="True label")
    axes.spines[:].set_visible(False)


def figure2(folder: Path, rows: Rows) -> Drawn:
    """SST accuracy over epochs, train and dev; a panel per row."""
    found = {row: results.history(folder, run) for row, run in _some(rows, "figure2").items()}

    def draw(history: pd.DataFrame, axes: Axes) -> None:
        axes.plot(history["epoch"], history[TRAIN], "o-", color=ORANGE, label="train", markersize=4)
        axes.plot(history["epoch"], history[DEV], "s-", color=BLUE, label="dev", markersize=4)
        axes.set(xlabel="Epoch", ylabel="SST accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    caption = (
        f"Figure 2: SST accuracy over epochs of {', '.join(map(paper.title, found))}, epoch 0 being the model before training; "
        "train is measured without dropout on as many training examples as dev has."
    )
    for row, history in found.items():
        best = history["epoch"][history[DEV].idxmax()]
        theirs = " (paper: it converges at around epoch 4 to 6 of 10)" if row == paper.BEST else ""
        caption += _sentence(row, rows, f"Dev is highest after epoch {best} of {history['epoch'].max()}{theirs}.")
    data = pd.concat(
        history[["epoch", TRAIN, DEV]].set_axis(["epoch", "train", "dev"], axis=1).assign(model=paper.title(row))
        for row, history in found.items()
    )
    panels = [(paper.title(row), partial(draw, history)) for row, history in found.items()]
    return Drawn(caption, panels, data[["model", "epoch", "train", "dev"]], (5.0, 3.2))


def figure3(folder: Path, rows: Rows) -> Drawn:
    """Trainable parameters versus overall score: DoRA by rank, and the full model."""
    found = {row: results.metrics(folder, run) for row, run in _some(rows, "figure3").items()}
    data = pd.DataFrame(
        [
            {
                "model": paper.FIGURE_3.get(row, row),
                "trainable_parameters": metrics["parameters"]["trainable"],
                "adapters_only": metrics["parameters"]["adapters_only"],
                "overall": metrics["dev"].get("overall"),
            }
            for row, metrics in found.items()
        ],
        index=list(found),
    ).astype({"adapters_only": "Int64", "overall": float})

    shown = data.dropna(subset="overall")
    adapted, full = shown[shown["adapters_only"].notna()], shown[shown["adapters_only"].isna()]

    def draw(axes: Axes) -> None:
        for some, marker, colour in ((adapted, "o", BLUE), (full, "D", ORANGE)):
            axes.plot(some["trainable_parameters"] / 1e6, some["overall"], marker, color=colour, markersize=6)
        axes.set(xlabel="Trainable parameters (millions)", ylabel="Overall score")
        axes.margins(0.15, 0.2)
        low, high = axes.get_ylim()
        # Neighbouring ranks lie close together: their labels move apart, and a thin line leads to each.
        heights = spread(adapted["overall"].to_numpy(), 0.07 * (high - low))
        for row, height in zip(adapted.itertuples(), heights, strict=True):
            _label(axes, row, height, 14, "left", f"DoRA {row.model}" if row.Index in paper.FIGURE_3 else row.model)
        for row in full.itertuples():
            _label(axes, row, row.overall, -14, "right", "full fine-tuning" if row.Index == "full" else row.model)

    caption = "Figure 3: Model size versus performance, DoRA of rank r and the full model."
    if {"r16", "full"} <= set(shown.index):
        more, gain = (shown.loc["full", name] / shown.loc["r16", name] - 1 for name in MEASURES)
        caption += (
            f" The full model trains {more:.0%} more parameters than rank 16 and scores {abs(gain):.1%} "
            f"{'lower' if gain < 0 else 'higher'} (paper: roughly 300% more for 3%)."
        )
    return Drawn(caption, [("", draw)], data, (5.0, 3.4))


def spread(values: np.ndarray, least: float) -> np.ndarray:
    """The values moved apart, in their order, until neighbours are `least` apart; each cluster keeps its mean."""
    order = np.argsort(values, kind="stable")
    clusters: list[tuple[float, int]] = []  # mean, members
    for value in values[order]:
        mean, members = float(value), 1
        while clusters and mean - clusters[-1][0] < least * (members + clusters[-1][1]) / 2:
            other, count = clusters.pop()
            mean, members = (mean * members + other * count) / (members + count), members + count
        clusters.append((mean, members))
    moved = np.empty(len(values))
    moved[order] = [mean + least * (i - (members - 1) / 2) for mean, members in clusters for i in range(members)]
    return moved


def _label(axes: Axes, row: Any, height: float, points: float, side: str, text: str) -> None:
    """Text beside a point, so many points to the right, at a height in data units, and a line that leads to it."""
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    axes.annotate(
        text,
        (row.trainable_parameters / 1e6, row.overall),
        xytext=(points, height),
        textcoords=("offset points", "data"),
        ha=side,
        va="center",
        fontsize=8,
        arrowprops=line,
    )


def figure4(folder: Path, rows: Rows) -> Drawn:
    """Residuals of STS predictions; a panel per row."""
    caption = (
        "Figure 4: Residual plot of STS predictions; below the line the model over-predicts. Labels of 0 and 5 lie on the "
        "dotted bounds."
    )
    tables = {}
    for row, run in _some(rows, "figure4").items():
        table = results.examples(folder, run, STS.name)
        label, predicted = table["label"].to_numpy(), table["prediction"].to_numpy()
        residual = residuals(label, predicted)
        columns = {"model": paper.title(row), "label": label, "predicted": predicted, "residual": residual}
        tables[row] = pd.DataFrame(columns)
        unlike = label < (STS.low + STS.high) / 2
        if unlike.any() and not unlike.all():
            low, high = (f"{residual[some].mean():+.2f}".replace("-", "−") for some in (unlike, ~unlike))
            theirs = " (paper: pairs of low similarity tend to be over-predicted)" if row == paper.BEST else ""
            told = f"The mean residual is {low} where the true similarity is below 2.5 and {high} elsewhere{theirs}."
            caption += _sentence(row, rows, told)

    def draw(data: pd.DataFrame, axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        for bound in (STS.low, STS.high):
            axes.axline((bound, 0), slope=-1, color=GREY, linewidth=0.8, linestyle=":")
        axes.scatter(data["predicted"], data["residual"], s=9, alpha=0.45, color=BLUE, linewidths=0)
        axes.set(xlabel="Predicted similarity", ylabel="True − predicted similarity")
        reach = 1.05 * max(1, data["residual"].abs().max())
        axes.set(xlim=(min(-0.1, data["predicted"].min()), max(5.1, data["predicted"].max())), ylim=(-reach, reach))

    panels = [(paper.title(row), partial(draw, data)) for row, data in tables.items()]
    return Drawn(caption, panels, pd.concat(tables.values()), (5.0, 3.4))


def render(drawn: Drawn, stem: Path) -> None:
    """Write stem.png, stem.svg (the caption within, as its description) and stem.csv, each as a whole or not at all."""
    with plt.style.context(["default", STYLE]):
        width, height = drawn.size
        size = (width * len(drawn.panels), height)
        figure, axes = plt.subplots(1, len(drawn.panels), figsize=size, layout="constrained", squeeze=False)
        for (title, draw), part in zip(drawn.panels, axes[0], strict=True):
            draw(part)
            if len(drawn.panels) > 1:
                part.set_title(title)
        about = {"Date": None, "Creator": None, "Description": drawn.caption}
        for ending, metadata in (("png", {"Software": None}), ("svg", about)):
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, metadata=metadata)
            atomic_write_bytes(stem.with_suffix(f".{ending}"), picture.getvalue())
        plt.close(figure)
    write_data(drawn, stem.with_suffix(".csv"))


def write_data(drawn: Drawn, path: Path) -> None:
    """Write what the figure shows as CSV, six digits a number."""
    rows = ([_cell(value) for value in row] for row in drawn.data.itertuples(index=False))
    write_csv(path, list(drawn.data.columns), rows)


def read_caption(path: Path) -> str:
    """The caption in the SVG that `render` wrote.

    Raises:
        MtbertError: the file is missing, damaged or not by `render`; names the stage that writes it.
    """
    try:
        caption = next(ElementTree.parse(path).iter(DESCRIPTION)).text
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; run `dvc repro figure@{path.stem}`") from None
    except (OSError, ElementTree.ParseError, StopIteration) as error:
        what, remedy = str(error) or "no description in it", f"run `dvc repro --force --single-item figure@{path.stem}`"
        raise MtbertError(f"{path}: cannot be read ({what}); {remedy}") from None
    return caption or ""


def _cell(value: Any) -> str | None:
    if pd.isna(value):
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sentence(row: str, rows: Rows, text: str) -> str:
    """A sentence of a caption, which says of which row it speaks where the figure has several."""
    return f" {paper.title(row)}: {text}" if len(rows) > 1 else f" {text}"


def _some(rows: Rows, name: str) -> Rows:
    if not rows:
        raise MtbertError(f"params.yaml: figures.{name} names no run; add a row (ROW: RUN), or remove figures.{name}")
    return rows


FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3, "figure4": figure4}
