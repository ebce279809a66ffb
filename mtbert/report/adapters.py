"""The study of adapters, as a table and a figure: each method and size at the learning rate that scores highest on held-out examples.

They are training examples, so dev takes no part in the choice. Functions are as in `mtbert.report.studies` and `mtbert.report.figures`.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from mtbert.errors import MtbertError
from mtbert.evaluation.resampling import holm
from mtbert.report import results
from mtbert.report.figures import GREY, Figure
from mtbert.report.results import Rows
from mtbert.report.significance import DETECTABLE, SIGNIFICANT, interval_note, seed_notes
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.report.studies import METRICS
from mtbert.report.tables import estimate, highest, score
from mtbert.report.text import Table, number, probability

FULL = "full fine-tuning"
SIZES = {"trainable_parameters": ("Trainable parameters", 1), "checkpoint_bytes": ("Checkpoint, MB", 1e6)}
COSTS = {  # measured by `benchmarks.methods`
    "time": ("Time of a step over full fine-tuning's", 1),
    "memory": ("Peak memory over full fine-tuning's", 1),
}


class Chosen(NamedTuple):
    """The run of a method and size with the best rate.

    Attributes:
        title: method and size, and `, and the rest` if `rest`.
        method: `adapter.method` of the run, or `FULL`.
        rest: whether embeddings, norms and biases train too.
        rate: of the adapter's parameters; without an adapter, of all.
        held_out: its highest overall score on held-out training examples; None if none were held out.
        rates: how many rates were compared.
    """

    title: str
    run: str
    method: str
    rest: bool
    rate: float
    held_out: float | None
    rates: int
    trainable_parameters: int
    checkpoint_bytes: int
    dev: dict[str, float | None]


def chosen(folder: Path, rows: Rows, key: str) -> list[Chosen]:
    """The best run of each method and size, in the order of the rows.

    Args:
        key: where the rows stand in params.yaml, such as "tables.adapters".

    Raises:
        MtbertError: a choice has to be made among runs without a held-out score.
    """
    found: dict[str, list[Chosen]] = {}
    for run in rows.values():
        one = _read(folder, run)
        found.setdefault(one.title, []).append(one)
    for alike in found.values():
        without = [one.run for one in alike if one.held_out is None]
        if len(alike) > 1 and without:
            raise MtbertError(
                f"params.yaml: {key}: {', '.join(one.run for one in alike)} are of one method and size, and the best is chosen by the "
                f"score on held-out examples, which {', '.join(without)} lack; set optimization.hold_out, or leave one row"
            )
    return [max(alike, key=lambda one: one.held_out or 0.0)._replace(rates=len(alike)) for alike in found.values()]


def _read(folder: Path, run: str) -> Chosen:
    settings, found = results.record(folder, run)["settings"], results.metrics(folder, run)
    history, adapter = results.history(folder, run), settings["adapter"]
    held_out = history["held_out"].max() if "held_out" in history else None
    rest = adapter is not None and adapter["train_rest"]
    return Chosen(
        (found["training"]["adapter"] or FULL) + (", and the rest" if rest else ""),
        run,
        adapter["method"] if adapter else FULL,
        rest,
        (adapter or settings)["learning_rate"],
        held_out,
        1,
        found["parameters"]["trainable"],
        found["checkpoint_bytes"],
        results.scores(found["dev"]),
    )


def table(folder: Path, rows: Rows, statistics: Statistics) -> Table:
    """Each method and size at its best rate: dev scores, the difference to full fine-tuning, and what is trained and kept."""
    found = chosen(folder, rows, "tables.adapters")
    full = next((one.run for one in found if one.method == FULL), None)
    gaps = {one.run: statistics.difference(full, one.run, OVERALL) for one in found if full and one.method != FULL}
    tested = {run: gap.p for run, gap in gaps.items() if gap.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    cells: list[tuple[str, ...]] = []
    for one in found:
        gap, p = gaps.get(one.run), adjusted.get(one.run)
        cells.append(
            (
                one.title,
                f"{one.rate:.1e}",
                number(one.held_out),
                *(score(statistics, one.run, metric, one.dev.get(metric)) for metric in METRICS),
                estimate(*gap[:3]) if gap else "–",
                "–" if p is None else probability(p),
                number(statistics.detectable(full, one.run, OVERALL) if full and gap else None),
                f"{one.trainable_parameters:,}",
                f"{one.checkpoint_bytes / 1e6:.2f}",
            )
        )
    notes = [
        f"Of up to {max(one.rates for one in found)} rates of a method and size, the one with the highest overall score on training "
        f"examples that were held out.{' And the rest: embeddings, norms and biases train too.' * any(one.rest for one in found)} MB: the "
        "file of the trained model; an adapter's holds only what was trained, and full fine-tuning's the whole model.",
        f"Difference to full fine-tuning on the same development examples. p: whether the true one is zero, by bootstrap, with Holm's "
        f"correction over the rows; below {SIGNIFICANT:.2f} it is taken to differ. Bold: the highest score.",
        DETECTABLE,
        interval_note(statistics),
        *seed_notes(statistics, {one.run: one.title for one in found}, METRICS),
    ]
    header = ("Method", "Rate", "Held out", *METRICS.values(), "Minus full", "p", "Detectable", "Trained", "MB")
    numeric = (False, *[True] * (len(header) - 1))
    bold = highest(cells, range(3, 7))
    return Table("Each method and size at its best rate.", header, cells, notes, numeric, "adapters", bold)


def figure(folder: Path, rows: Rows, statistics: Statistics) -> Figure:
    """Overall with its interval over trainable parameters, and over the bytes of the checkpoint; a point per method and size."""
    found = chosen(folder, rows, "figures.adapters")
    data = pd.DataFrame(
        [
            {
                **{"model": one.title, "method": one.method, "rest": one.rest},
                **{"run": one.run, "learning_rate": one.rate},
                **{name: getattr(one, name) for name in SIZES},
                **dict(zip(("overall", "low", "high"), statistics.metric(one.run, OVERALL), strict=True)),
            }
            for one in found
        ]
    ).astype({"overall": float, "low": float, "high": float})
    squares = " Squares: embeddings, norms and biases train too." if any(one.rest for one in found) else ""
    caption = (
        "Overall dev score of each method and size at its best rate, chosen on held-out training examples: over the parameters that are "
        f"trained, and over the bytes of the checkpoint. Diamond: full fine-tuning.{squares} Points of equal size are drawn side by side. "
        "The bars are 95% intervals over development examples, not seeds."
    )
    last = list(SIZES)[-1]
    panels = [(label, partial(draw, data, size, legend=size == last)) for size, (label, _) in SIZES.items()]
    return Figure(caption, panels, data, (5.0, 3.8))


def draw(data: pd.DataFrame, quantity: str, axes: Axes, *, legend: bool) -> None:
    """Overall with its interval over a quantity.

    Args:
        data: columns model, method, rest, overall, low, high and the quantity; a row is a point.
        quantity: a key of `SIZES` or of `COSTS`.
    """
    label, unit = (SIZES | COSTS)[quantity]
    methods = [method for method in dict.fromkeys(data["method"]) if method != FULL]
    colours = {FULL: GREY} | {method: matplotlib.colormaps["tab20"](n % 20) for n, method in enumerate(methods)}
    shown = data.dropna(subset=["overall", quantity])
    alike = shown.groupby(quantity)[quantity]  # drawn side by side, 4% apart
    places = shown[quantity] / unit * 1.04 ** (alike.cumcount() - (alike.transform("size") - 1) / 2)
    for row, place in zip(shown.itertuples(), places, strict=True):
        style: Any = {"color": colours[row.method], "markersize": 6, "elinewidth": 0.8, "capsize": 2}
        marker = "D" if row.method == FULL else "s" if row.rest else "o"
        bars = [[row.overall - row.low], [row.high - row.overall]]
        axes.errorbar(place, row.overall, bars, fmt=marker, label=row.model, **style)
    axes.set(xscale="log", xlabel=label, ylabel="Overall score")
    if legend:
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))


TABLES, FIGURES = {"adapters": table}, {"adapters": figure}
