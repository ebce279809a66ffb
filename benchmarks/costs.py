"""What each adapter method reaches and what it costs: scores of studies/zoo_small, times and memory of `benchmarks.methods`."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.harness import RESULTS
from mtbert.report.adapters import COSTS, SIZES, draw
from mtbert.report.figures import STYLE

SCORES = Path("studies/zoo_small/reports/course/figures/adapters.csv")


def measured(folder: Path = RESULTS, scores: Path = SCORES) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A row for each method with its scores and costs, fastest first; and the whole result of `benchmarks.methods`."""
    result = json.loads((folder / "methods.json").read_text(encoding="utf-8"))
    costs = pd.DataFrame(result["methods"].values()).rename(columns={"title": "model"})
    costs["memory"] = costs["peak_bytes"] / result["methods"][result["ours"]]["peak_bytes"]
    return costs.sort_values("time").merge(pd.read_csv(scores), on="model", how="left"), result


def table() -> str:
    """A Markdown table of the methods, with a note on how the costs were measured."""
    data, result = measured()
    lines = [
        "| Method | Overall score | Trained of the encoder | Checkpoint, MB | Time of a step | Peak memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in data.itertuples():
        score = f"{row.overall:.3f} ({row.low:.3f} to {row.high:.3f})".replace("0.", ".")
        size = f"{row.checkpoint_bytes / 1e6:.2f}"
        lines.append(f"| {row.model} | {score} | {row.trained:,} | {size} | {row.time:.2f} | {row.memory:.2f} |")
    where, full = result["where"], result["methods"][result["ours"]]
    rate = result["cases"][result["ours"]]["median"]
    lines += [
        "",
        f"Time and memory are relative to full fine-tuning's ({rate:,.0f} tokens a second, {full['peak_bytes'] / 1e6:,.0f} MB): "
        f"`{result['command']}` on {where['machine']}, {result['precision']}, {where['date']}; medians of "
        f"{len(result['cases'][result['ours']]['rounds'])} alternating rounds.",
    ]
    return "\n".join(lines)


def draw_figure(path: Path = RESULTS / "methods.svg") -> None:
    """Overall over each size and cost. Equal results give equal bytes."""
    import matplotlib.pyplot as plt

    data, _ = measured()
    with plt.style.context(["default", STYLE]):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.6), sharey=True, layout="constrained")
        for n, (quantity, panel) in enumerate(zip(SIZES | COSTS, axes.flat, strict=True)):
            draw(data, quantity, panel, legend=n == 1)
            if quantity in COSTS:  # of one order of magnitude
                panel.set_xscale("linear")
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
