"""Figures 1 to 4 (section 6) from the results of the runs: a picture, and the table of what is drawn.

Equal results give equal bytes: no dates, no random ids, fonts as outlines.
"""

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

from mtbert.evaluation.analysis import confusion, normalised, residuals
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
        image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            told = "–" if np.isnan(share) else f"{share:.2f}\n({counts[row, column]})"
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, told, ha="center", va="center", color=colour, fontsize=8)
        names = [f"{level}: {name}".replace("what ", "what\n") for level, name in enumerate(paper.SENTIMENTS)]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="Predicted label", ylabel="True label")
        axes.spines[:].set_visible(False)
        axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="Share of the true label")

    data = pd.DataFrame({"actual": table["label"].astype(int), "predicted": table["prediction"].astype(int)})
    caption = "Figure 1: Sentiment confusion matrix, normalised by true label (counts in parentheses)."
    return Drawn(caption, draw, data, (6.6, 4.8))


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
    caption = (
        "Figure 2: SST accuracy over epochs of Best Performance, epoch 0 being the model before training; "
        "train is measured without dropout on as many training examples as dev has."
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

    def draw(axes: Axes) -> None:
        adapted, full = data[data["adapters_only"].notna()], data[data["adapters_only"].isna()]
        millions = 1e6
        axes.plot(adapted["trainable_parameters"] / millions, adapted["overall"], "o-", color=BLUE, label="DoRA")
        axes.plot(full["trainable_parameters"] / millions, full["overall"], "D", color=ORANGE, label="full fine-tuning")
        for index, row in enumerate(data.itertuples()):
            # Neighbouring ranks lie close together: labels alternate above and below.
            place = (0, 8) if index % 2 == 0 else (0, -14)
            point = (row.trainable_parameters / millions, row.overall)
            axes.annotate(row.model, point, xytext=place, textcoords="offset points", ha="center", fontsize=8)
        axes.set(xlabel="Trainable parameters (millions)", ylabel="Overall score")
        axes.margins(0.12, 0.2)
        axes.legend(loc="center right")

    return Drawn("Figure 3: Model size versus performance.", draw, data, (5.0, 3.4))


def figure4(folder: Path) -> Drawn:
    """Residuals of STS predictions."""
    table = results.examples(folder, "best_performance", "sts")
    label, predicted = table["label"].to_numpy(), table["prediction"].to_numpy()
    data = pd.DataFrame({"label": label, "predicted": predicted, "residual": residuals(label, predicted)})

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.scatter(data["predicted"], data["residual"], s=9, alpha=0.45, color=BLUE, linewidths=0)
        axes.set(xlabel="Predicted similarity", ylabel="True − predicted similarity", xlim=(-0.1, 5.1))

    caption = "Figure 4: Residual plot of STS predictions; below the line the model over-predicts."
    return Drawn(caption, draw, data, (5.0, 3.4))


def render(drawn: Drawn, stem: Path) -> None:
    """Write stem.png, stem.svg and stem.csv."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure: Figure
        figure, axes = plt.subplots(figsize=drawn.size, layout="constrained")
        drawn.draw(axes)
        figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        plt.close(figure)
    drawn.data.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")


FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3, "figure4": figure4}
