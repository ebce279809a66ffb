"""Figures 1 to 4 (section 6) from the results of the runs: a picture, and the plotted data as a table.

Each function takes the results folder, the figure's rows from params.yaml, {row: run}, and the statistics of the runs. A row that is
not in the paper is titled by its key. Equal results give equal bytes: the files hold no dates and no random ids, and text is drawn as outlines.
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

from mtbert.evaluation.analysis import confusion, normalised, residuals
from mtbert.evaluation.resampling import wilson
from mtbert.files import atomic_write_bytes
from mtbert.report import paper, results
from mtbert.report.reading import reading
from mtbert.report.results import Rows
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.tabular import write_csv
from mtbert.tasks.paper import CURVE, SST, STS

# Okabe and Ito's colours, which colour-blind readers can distinguish, also in print.
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
PAPER_LINE: Any = {"color": GREY, "linewidth": 0.9, "linestyle": "--"}  # a score that the paper prints
PARTS = ("train", "dev")
COLUMNS = tuple(f"{part}_{CURVE.name}" for part in PARTS)  # of history.csv
DEV = COLUMNS[1]
MEASURES = ("trainable_parameters", "overall")
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


class Figure(NamedTuple):
    """A figure.

    Attributes:
        panels: the title of each panel, and the function that draws it.
        data: what is plotted.
        size: width and height of a panel, in inches.
    """

    caption: str
    panels: Sequence[tuple[str, Callable[[Axes], None]]]
    data: pd.DataFrame
    size: tuple[float, float]


def figure1(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """Sentiment confusion matrix, normalised by true label, with Wilson's intervals; a panel per row."""
    names = [f"{level} {name}" for level, name in enumerate(paper.SENTIMENTS)]
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    tables = []
    caption = (
        "Figure 1: Sentiment confusion matrix, normalised by true label; below each share, its 95% interval over development "
        "examples (Wilson's), and the count."
    )
    for row, run in rows.items():
        table = results.examples(folder, run, SST.name)
        counts = confusion(table["label"].to_numpy(), table["prediction"].to_numpy(), len(names))
        shares, (low, high) = normalised(counts), _intervals(counts)
        printed = paper.FIGURE_1 if row == paper.BEST else {}
        panels.append((paper.title(row), partial(_matrix, counts, shares, low, high, names, printed)))
        tables += [
            {"model": paper.title(row), "actual": names[actual], "predicted": names[predicted], "share": share}
            | {"count": counts[actual, predicted], "low": low[actual, predicted], "high": high[actual, predicted]}
            for (actual, predicted), share in np.ndenumerate(shares)
        ]
        if row == paper.BEST and not np.isnan(shares[2]).any():
            lower, higher = (f"{shares[2, to]:.0%} ({low[2, to]:.0%} to {high[2, to]:.0%})" for to in (1, 3))
            text = f"Of the neutral sentences {lower} are taken for 1 and {higher} for 3 (paper: 24% and 32%)."
            caption += _sentence(row, rows, text)
    return Figure(caption, panels, pd.DataFrame(tables), (4.8, 4.6))


def _intervals(counts: np.ndarray) -> np.ndarray:
    """Both ends of Wilson's interval of each count's share of its row, (2, C, C); NaN in the row of a label that does not occur."""
    ends = np.full((2, *counts.shape), np.nan)
    for actual, total in enumerate(counts.sum(1)):
        if total:
            ends[:, actual] = np.array([wilson(int(count), int(total))[1:] for count in counts[actual]]).T
    return ends


def _matrix(
    counts: np.ndarray,
    shares: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    names: list[str],
    printed: Mapping[tuple[int, int], float],
    axes: Axes,
) -> None:
    """Draw the shares, and below them their intervals, the counts and the shares that the paper prints."""
    axes.grid(False)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{share:.0%}"
        colour = "white" if share > 0.55 else "black"
        place: Any = {"ha": "center", "va": "center", "color": colour}
        axes.text(column, row - 0.22, text, fontsize=10, **place)
        if not np.isnan(share):
            ends = f"{low[row, column] * 100:.0f}–{high[row, column]:.0%}"
            axes.text(column, row + 0.05, ends, fontsize=6.5, **place)
        axes.text(column, row + 0.23, f"{counts[row, column]:,}", fontsize=7, **place)
        if (row, column) in printed:
            text = f"paper: {printed[row, column]:.0%}"
            axes.text(column, row + 0.4, text, fontsize=6, **place)
    lines = [name.replace(" ", "\n") for name in names]
    axes.set_xticks(range(len(names)), lines, fontsize=8)
    axes.set_yticks(range(len(names)), lines, fontsize=8)
    axes.tick_params(length=0)
    axes.set(xlabel="Predicted label", ylabel="True label")
    axes.spines[:].set_visible(False)


def figure2(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """SST accuracy on train and dev over epochs, with Wilson's intervals; a panel per row."""
    found = {row: _accuracies(folder, run) for row, run in rows.items()}

    def draw(row: str, history: pd.DataFrame, axes: Axes) -> None:
        for part, column, line, colour in zip(PARTS, COLUMNS, ("o-", "s-"), (ORANGE, BLUE), strict=True):
            axes.plot(history["epoch"], history[column], line, color=colour, label=part, markersize=4)
            ends = history[f"{part}_low"], history[f"{part}_high"]
            axes.fill_between(history["epoch"], *ends, color=colour, alpha=0.15, linewidth=0)
        if row == paper.BEST:
            axes.axhline(paper.TABLE_1[row][2].sst, label="paper, dev after training", **PAPER_LINE)
        axes.set(xlabel="Epoch", ylabel="SST accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    caption = (
        f"Figure 2: SST accuracy over epochs of {', '.join(map(paper.title, found))}, epoch 0 being the model before training; "
        "train and dev are each measured without dropout on at most 500 examples, and the bands are 95% intervals over them (Wilson's)."
    )
    for row, history in found.items():
        best = history["epoch"][history[DEV].idxmax()]
        in_paper = " (paper: it converges at around epoch 4 to 6 of 10)" if row == paper.BEST else ""
        caption += _sentence(row, rows, f"Dev is highest after epoch {best} of {history['epoch'].max()}{in_paper}.")
    data = pd.concat(
        history.rename(columns=dict(zip(COLUMNS, PARTS, strict=True))).assign(model=paper.title(row))
        for row, history in found.items()
    )
    panels = [(paper.title(row), partial(draw, row, history)) for row, history in found.items()]
    ends = [f"{part}_{end}" for part in PARTS for end in ("low", "high")]
    return Figure(caption, panels, data[["model", "epoch", *PARTS, *ends]], (5.0, 3.2))


def _accuracies(folder: Path, run: str) -> pd.DataFrame:
    """The run's history with columns for the ends of Wilson's intervals of its accuracies on SST."""
    history = results.history(folder, run, COLUMNS)
    for part, column in zip(PARTS, COLUMNS, strict=True):
        examples = results.watched_examples(folder, run, part)
        ends = [wilson(round(share * examples), examples)[1:] for share in history[column]]
        history[[f"{part}_low", f"{part}_high"]] = ends
    return history


def figure3(folder: Path, rows: Rows, statistics: Statistics) -> Figure:
    """Trainable parameters versus overall score with its interval: DoRA by rank, and the full model."""
    found = {row: results.metrics(folder, run) for row, run in rows.items()}
    data = pd.DataFrame(
        [
            {
                "model": paper.FIGURE_3.get(row, row),
                "trainable_parameters": metrics["parameters"]["trainable"],
                "adapters_only": metrics["parameters"]["adapters_only"],
                "overall": metrics["dev"].get(OVERALL),
                "low": statistics.metric(rows[row], OVERALL).low,
                "high": statistics.metric(rows[row], OVERALL).high,
            }
            for row, metrics in found.items()
        ],
        index=list(found),
    ).astype({"adapters_only": "Int64", "overall": float, "low": float, "high": float})

    shown = data.dropna(subset="overall")
    adapted, full = shown[shown["adapters_only"].notna()], shown[shown["adapters_only"].isna()]

    def draw(axes: Axes) -> None:
        for points, marker, colour in ((adapted, "o", BLUE), (full, "D", ORANGE)):
            bars = points[["low", "high"]].sub(points["overall"], axis=0).abs().to_numpy().T
            style: Any = {"fmt": marker, "color": colour, "markersize": 6, "elinewidth": 0.8, "capsize": 3}
            axes.errorbar(points["trainable_parameters"] / 1e6, points["overall"], bars, **style)
        for row, score in paper.FIGURE_3_OVERALL.items():
            if row in shown.index:
                axes.axhline(score, **PAPER_LINE)
                text, side = f"paper, {paper.FIGURE_3[row]}", "bottom" if row == "full" else "top"
                axes.text(
                    0.5, score, text, transform=axes.get_yaxis_transform(), ha="center", va=side, color=GREY, fontsize=7
                )
        axes.set(xlabel="Trainable parameters (millions)", ylabel="Overall score")
        axes.margins(0.15, 0.2)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        gap = 0.03 * (right - left)
        # Neighbouring ranks are close together, so their labels are moved apart, off the bars, and joined to their points by lines.
        heights = spread(adapted["overall"].to_numpy(), 0.07 * (high - low))
        beside = adapted["trainable_parameters"].max() / 1e6 + gap
        for row, height in zip(adapted.itertuples(), heights, strict=True):
            text = f"DoRA {row.model}" if row.Index in paper.FIGURE_3 else row.model
            _label(axes, row, (beside, height), "left", text)
        for row in full.itertuples():
            text = "full fine-tuning" if row.Index == "full" else row.model
            _label(axes, row, (row.trainable_parameters / 1e6 - gap, row.overall), "right", text)

    caption = (
        "Figure 3: Model size versus performance, DoRA of rank r and the full model; the bars are 95% intervals over "
        "development examples, not seeds. The paper prints the scores of two of its points (dashed), but not their parameters."
    )
    if {"r16", "full"} <= set(shown.index):
        more, gain = (shown.loc["full", name] / shown.loc["r16", name] - 1 for name in MEASURES)
        caption += (
            f" The full model trains {more:.0%} more parameters than rank 16 and scores {abs(gain):.1%} "
            f"{'lower' if gain < 0 else 'higher'} (paper: roughly 300% more for 3%)."
        )
    return Figure(caption, [("", draw)], data, (5.0, 3.4))


def spread(values: np.ndarray, distance: float) -> np.ndarray:
    """Move values until neighbours are at least `distance` apart; keeps their order and the mean of each cluster."""
    order = np.argsort(values, kind="stable")
    clusters: list[tuple[float, int]] = []  # mean, members
    for value in values[order]:
        mean, members = float(value), 1
        while clusters and mean - clusters[-1][0] < distance * (members + clusters[-1][1]) / 2:
            other, count = clusters.pop()
            mean, members = (mean * members + other * count) / (members + count), members + count
        clusters.append((mean, members))
    moved = np.empty(len(values))
    moved[order] = [mean + distance * (i - (members - 1) / 2) for mean, members in clusters for i in range(members)]
    return moved


def _label(axes: Axes, row: Any, place: tuple[float, float], side: str, text: str) -> None:
    """Put the text at a place in data units, and join it to its data point by a line."""
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    axes.annotate(
        text,
        (row.trainable_parameters / 1e6, row.overall),
        xytext=place,
        ha=side,
        va="center",
        fontsize=8,
        arrowprops=line,
    )


def figure4(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """Residuals of STS predictions; a panel per row."""
    caption = (
        "Figure 4: Residual plot of STS predictions; below the line the model over-predicts. Labels of 0 and 5 lie on the "
        "dotted bounds."
    )
    tables = {}
    for row, run in rows.items():
        table = results.examples(folder, run, STS.name)
        label, predicted = table["label"].to_numpy(), table["prediction"].to_numpy()
        residual = residuals(label, predicted)
        columns = {"model": paper.title(row), "label": label, "predicted": predicted, "residual": residual}
        tables[row] = pd.DataFrame(columns)
        unlike = label < (STS.low + STS.high) / 2
        if unlike.any() and not unlike.all():
            low, high = (f"{residual[selected].mean():+.2f}".replace("-", "−") for selected in (unlike, ~unlike))
            in_paper = " (paper: pairs of low similarity tend to be over-predicted)" if row == paper.BEST else ""
            text = f"The mean residual is {low} where the true similarity is below 2.5 and {high} elsewhere{in_paper}."
            caption += _sentence(row, rows, text)

    def draw(data: pd.DataFrame, axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        for bound in (STS.low, STS.high):
            axes.axline((bound, 0), slope=-1, color=GREY, linewidth=0.8, linestyle=":")
        axes.scatter(data["predicted"], data["residual"], s=9, alpha=0.45, color=BLUE, linewidths=0)
        axes.set(xlabel="Predicted similarity", ylabel="True − predicted similarity")
        limit = 1.05 * max(1, data["residual"].abs().max())
        axes.set(xlim=(min(-0.1, data["predicted"].min()), max(5.1, data["predicted"].max())), ylim=(-limit, limit))

    panels = [(paper.title(row), partial(draw, data)) for row, data in tables.items()]
    return Figure(caption, panels, pd.concat(tables.values()), (5.0, 3.4))


def render(figure: Figure, stem: Path) -> None:
    """Write stem.png, stem.svg (with the caption as its description) and stem.csv, each atomically."""
    with plt.style.context(["default", STYLE]):
        width, height = figure.size
        size = (width * len(figure.panels), height)
        canvas, axes = plt.subplots(1, len(figure.panels), figsize=size, layout="constrained", squeeze=False)
        for (title, draw), part in zip(figure.panels, axes[0], strict=True):
            draw(part)
            if len(figure.panels) > 1:
                part.set_title(title)
        svg_metadata = {"Date": None, "Creator": None, "Description": figure.caption}
        for ending, metadata in (("png", {"Software": None}), ("svg", svg_metadata)):
            picture = io.BytesIO()
            canvas.savefig(picture, format=ending, metadata=metadata)
            atomic_write_bytes(stem.with_suffix(f".{ending}"), picture.getvalue())
        plt.close(canvas)
    write_data(figure, stem.with_suffix(".csv"))


def write_data(figure: Figure, path: Path) -> None:
    """Write the plotted data as CSV, numbers with six significant digits."""
    rows = ([_cell(value) for value in row] for row in figure.data.itertuples(index=False))
    write_csv(path, list(figure.data.columns), rows)


def read_caption(path: Path) -> str:
    """The caption in an SVG written by `render`.

    Raises:
        MtbertError: the file is missing, damaged or was not written by `render`; the message names the stage to run.
    """
    with reading(path, f"figure@{path.stem}"):
        found = next(ElementTree.parse(path).iter(DESCRIPTION), None)
        if found is None:
            raise ValueError("no description in it")
        return found.text or ""


def _cell(value: Any) -> str | None:
    if pd.isna(value):
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sentence(row: str, rows: Rows, text: str) -> str:
    """A sentence of a caption; if the figure has several rows, it starts with the title of this one."""
    return f" {paper.title(row)}: {text}" if len(rows) > 1 else f" {text}"


FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3, "figure4": figure4}
