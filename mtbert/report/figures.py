"""Figures 1 to 4 (section 6) from the results of the runs: a picture, and the table of what is drawn.

Equal results give equal bytes: no dates, no random ids, fonts as outlines.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtbert.data.tasks import STS
from mtbert.evaluation.analysis import confusion, normalised, residuals
from mtbert.files import atomic_write_bytes, atomic_write_text
from mtbert.report import paper, results

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


MEASURES = ("trainable_parameters", "overall")


class Drawn(NamedTuple):
    """A figure: its caption, how to draw it, and what it shows as a table for `dvc plots`."""

    caption: str
    draw: Callable[[Axes], None]
    data: pd.DataFrame
    size: tuple[float, float]


def figure1(folder: Path) -> Drawn:
    """Sentiment confusion, normalised by true label."""
    table = results.examples(folder, "best_performance", "sst")
    counts = confusion(table["label"].to_numpy(), table["prediction"].to_numpy(), len(paper.SENTIMENTS))
    shares = normalised(counts)

    def draw(axes: Axes) -> None:
        axes.grid(False)
        axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            told = "–" if np.isnan(share) else f"{share:.0%}"
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row - 0.1, told, ha="center", va="center", color=colour, fontsize=10)
            axes.text(
                column, row + 0.22, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=7
            )
        names = [f"{level}\n{name}".replace("Somewhat ", "Somewhat\n") for level, name in enumerate(paper.SENTIMENTS)]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(length=0)
        axes.set(xlabel="Predicted label", ylabel="True label")
        axes.spines[:].set_visible(False)

    data = pd.DataFrame({"actual": table["label"].astype(int), "predicted": table["prediction"].astype(int)})
    caption = "Figure 1: Sentiment confusion matrix, normalised by true label, with counts below."
    if not np.isnan(shares[2]).any():
        lower, higher = shares[2, 1], shares[2, 3]
        caption += f" Of the neutral sentences {lower:.0%} are taken for 1 and {higher:.0%} for 3 (paper: 24% and 32%)."
    return Drawn(caption, draw, data, (4.8, 4.6))


def figure2(folder: Path) -> Drawn:
    """SST accuracy over epochs, train and dev."""
    rows = results.history(folder, "best_performance")

    def draw(axes: Axes) -> None:
        axes.plot(rows["epoch"], rows["train_sst"], "o-", color=ORANGE, label="train", markersize=4)
        axes.plot(rows["epoch"], rows["dev_sst"], "s-", color=BLUE, label="dev", markersize=4)
        axes.set(xlabel="Epoch", ylabel="SST accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    data = rows.melt("epoch", ["train_sst", "dev_sst"], var_name="split", value_name="accuracy")
    data["split"] = data["split"].str.removesuffix("_sst")
    best = rows["epoch"][rows["dev_sst"].idxmax()]
    caption = (
        "Figure 2: SST accuracy over epochs of Best Performance, epoch 0 being the model before training; "
        "train is measured without dropout on as many training examples as dev has. Dev is highest after "
        f"epoch {best} of {rows['epoch'].max()} (paper: it converges at around epoch 4 to 6 of 10)."
    )
    return Drawn(caption, draw, data, (5.0, 3.2))


def figure3(folder: Path) -> Drawn:
    """Trainable parameters versus overall score: DoRA by rank, and the full model."""
    found = [(name, run, results.metrics(folder, run)) for name, run in paper.FIGURE_3]
    data = pd.DataFrame(
        [
            {
                "model": name,
                "trainable_parameters": metrics["parameters"]["trainable"],
                "adapters_only": metrics["parameters"]["adapters_only"],
                "overall": metrics["dev"].get("overall"),
            }
            for name, _, metrics in found
        ]
    ).astype({"adapters_only": "Int64", "overall": float})

    shown = data.dropna(subset="overall")
    adapted, full = shown[shown["adapters_only"].notna()], shown[shown["adapters_only"].isna()]

    def draw(axes: Axes) -> None:
        for rows, marker, colour in ((adapted, "o", BLUE), (full, "D", ORANGE)):
            axes.plot(rows["trainable_parameters"] / 1e6, rows["overall"], marker, color=colour, markersize=6)
        axes.set(xlabel="Trainable parameters (millions)", ylabel="Overall score")
        axes.margins(0.15, 0.2)
        low, high = axes.get_ylim()
        # Neighbouring ranks lie close together: their labels move apart, and a thin line leads to each.
        heights = spread(adapted["overall"].to_numpy(), 0.07 * (high - low))
        for row, height in zip(adapted.itertuples(), heights, strict=True):
            _label(axes, row, height, 14, "left", f"DoRA {row.model}")
        for row in full.itertuples():
            _label(axes, row, row.overall, -14, "right", "full fine-tuning")

    caption = "Figure 3: Model size versus performance, DoRA of rank r and the full model."
    by_model = shown.set_index("model")
    if {"r = 16", "full"} <= set(by_model.index):
        more, gain = (by_model.loc["full", name] / by_model.loc["r = 16", name] - 1 for name in MEASURES)
        caption += (
            f" The full model trains {more:.0%} more parameters than rank 16 and scores {abs(gain):.1%} "
            f"{'lower' if gain < 0 else 'higher'} (paper: roughly 300% more for 3%)."
        )
    return Drawn(caption, draw, data, (5.0, 3.4))


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


def figure4(folder: Path) -> Drawn:
    """Residuals of STS predictions."""
    table = results.examples(folder, "best_performance", "sts")
    label, predicted = table["label"].to_numpy(), table["prediction"].to_numpy()
    data = pd.DataFrame({"label": label, "predicted": predicted, "residual": residuals(label, predicted)})

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        for bound in (STS.low, STS.high):
            axes.axline((bound, 0), slope=-1, color=GREY, linewidth=0.8, linestyle=":")
        axes.scatter(data["predicted"], data["residual"], s=9, alpha=0.45, color=BLUE, linewidths=0)
        axes.set(xlabel="Predicted similarity", ylabel="True − predicted similarity")
        reach = 1.05 * max(1, data["residual"].abs().max())
        axes.set(xlim=(min(-0.1, predicted.min()), max(5.1, predicted.max())), ylim=(-reach, reach))

    caption = (
        "Figure 4: Residual plot of STS predictions; below the line the model over-predicts. Labels of 0 and 5 lie on the "
        "dotted bounds."
    )
    unlike = label < (STS.low + STS.high) / 2
    if unlike.any() and not unlike.all():
        low, high = (f"{data['residual'][rows].mean():+.2f}".replace("-", "−") for rows in (unlike, ~unlike))
        caption += (
            f" The mean residual is {low} where the true similarity is below 2.5 and {high} elsewhere (paper: pairs of low "
            "similarity tend to be over-predicted)."
        )
    return Drawn(caption, draw, data, (5.0, 3.4))


def render(drawn: Drawn, stem: Path) -> None:
    """Write stem.png, stem.svg and stem.csv, each as a whole or not at all."""
    with plt.style.context(["default", STYLE]):
        figure: Figure
        figure, axes = plt.subplots(figsize=drawn.size, layout="constrained")
        drawn.draw(axes)
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, metadata=metadata)
            atomic_write_bytes(stem.with_suffix(f".{ending}"), picture.getvalue())
        plt.close(figure)
    atomic_write_text(
        stem.with_suffix(".csv"), drawn.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    )


FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3, "figure4": figure4}
