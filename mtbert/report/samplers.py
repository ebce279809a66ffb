"""Figures of the study of samplers (section 4.3, Table 3): what is due to the sampler, and what to the amount of training.

By the paper's rule an epoch ends when a dataset is used up, so the samplers train for different numbers of steps. The study trains
them for equal numbers of steps and of tokens too. Functions are as in `mtbert.report.figures`.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtbert.errors import MtbertError
from mtbert.report import results
from mtbert.report.figures import BLUE, GREY, ORANGE, Figure
from mtbert.report.results import Rows
from mtbert.report.statistics import OVERALL, Statistics
from mtbert.report.studies import METRICS
from mtbert.tasks.paper import STS

PAPER, STEPS, TOKENS = "paper's rule", "equal steps", "equal tokens"
LOOKS = {PAPER: ("D", GREY), STEPS: ("s", ORANGE), TOKENS: ("o", BLUE)}  # marker and colour
OTHERS = {"Sequential": GREY, "Round robin": ORANGE, "Annealed": "#CC79A7"}  # the samplers without an exponent


class Sampled(NamedTuple):
    """A run of the study.

    Attributes:
        title: its sampler, as it is shown.
        exponent: None for samplers without one, or with a changing one.
        rules: how its epochs end; sequential's epoch is one pass over all data by every rule.
        tokens: real tokens trained on.
    """

    run: str
    title: str
    exponent: float | None
    rules: tuple[str, ...]
    tokens: int


def sampler_exponent(folder: Path, rows: Rows, statistics: Statistics) -> Figure:
    """Each dev score against the exponent α of the datasets' sizes, at equal steps and at equal tokens; a panel per score."""
    found = [one for one in _runs(folder, rows, "sampler_exponent", (STEPS, TOKENS)) if one.exponent is not None]
    data = _scored(found, (STEPS, TOKENS), statistics).sort_values(["metric", "rule", "exponent"], ignore_index=True)

    def draw(metric: str, axes: Axes) -> None:
        for rule, points in data[data["metric"] == metric].groupby("rule"):
            _bars(axes, points["exponent"] + (0.01 if rule == STEPS else 0), points, rule, line="-")
        axes.set(xlabel="Exponent α")
        if metric == OVERALL:
            axes.legend(fontsize=7)

    caption = (
        "Dev scores against the exponent α of the sampling probabilities |D|^α, at equal steps and at equal tokens; the bars are "
        "95% intervals over development examples, not seeds."
    )
    return Figure(caption, [(METRICS[metric], partial(draw, metric)) for metric in METRICS], data, (3.6, 3.2))


def sampler_curves(folder: Path, rows: Rows, _: Statistics) -> Figure:
    """Learning curves of each task over the tokens trained on, a line per sampler at equal tokens; a panel per task."""
    found = _runs(folder, rows, "sampler_curves", (TOKENS,))
    curves = {one.run: _curve(folder, one.run) for one in found}
    data = pd.concat(curves[one.run].assign(sampler=one.title) for one in found)

    def draw(metric: str, axes: Axes) -> None:
        _lines(axes, found, curves, f"dev_{metric}")
        axes.set(xlabel="Tokens trained on (thousands)")
        if metric == STS.name:
            axes.legend(fontsize=7)

    caption = (
        "Learning curves of each task over the tokens of all tasks, a point after each epoch, on a sample of the development "
        "examples. At equal tokens, the samplers differ only in the tasks that the tokens are of, and in their order."
    )
    panels = [(METRICS[metric], partial(draw, metric)) for metric in METRICS if metric != OVERALL]
    return Figure(caption, panels, data[["sampler", *data.columns.drop("sampler")]], (3.8, 3.2))


def sampler_amount(folder: Path, rows: Rows, statistics: Statistics) -> Figure:
    """Overall score over tokens with a marker where the paper's rule stops each sampler, and the final scores by each rule."""
    found = _runs(folder, rows, "sampler_amount", LOOKS)
    equal, stopped = (_runs(folder, rows, "sampler_amount", (rule,)) for rule in (TOKENS, PAPER))
    curves = {one.run: _curve(folder, one.run) for one in equal}
    data = _scored(found, LOOKS, statistics)
    data = data[data["metric"] == OVERALL].drop(columns="metric")
    titles = list(dict.fromkeys(one.title for one in found))

    def draw_curves(axes: Axes) -> None:
        _lines(axes, equal, curves, f"dev_{OVERALL}")
        for one in stopped:
            end = _curve(folder, one.run).iloc[-1]
            place = end["tokens"] / 1e3, end[f"dev_{OVERALL}"]
            axes.plot(*place, "D", color=_colour(one), markersize=7, markeredgecolor="black", markeredgewidth=0.8)
        axes.set(xlabel="Tokens trained on (thousands)", ylabel="Overall, on a sample of dev")
        axes.legend(fontsize=7)

    def draw_scores(axes: Axes) -> None:
        for shift, (rule, points) in zip((-0.2, 0, 0.2), data.groupby("rule", sort=False), strict=False):
            _bars(axes, points["sampler"].map(titles.index) + shift, points, rule)
        axes.set_xticks(range(len(titles)), titles, rotation=30, ha="right", fontsize=8)
        axes.set(ylabel="Overall, on all of dev")
        axes.legend(fontsize=7)

    caption = (
        "Left: overall score over the tokens trained on, a line per sampler; a diamond is where the paper's rule, an epoch until a "
        "dataset is used up, stops the sampler of its colour. Along a line the amount of training changes, between lines at the "
        "same tokens the sampler. Right: the score after training by each rule, with 95% intervals over development examples. "
        f"{_spreads(data, stopped)}"
    )
    panels = [("Over tokens", draw_curves), ("After training", draw_scores)]
    return Figure(caption, panels, data, (5.4, 3.6))


def _runs(folder: Path, rows: Rows, figure: str, rules: Iterable[str]) -> list[Sampled]:
    """The figure's runs whose epochs end by one of these rules.

    Raises:
        MtbertError: there are none.
    """
    found = []
    for run in rows.values():
        settings, training = results.record(folder, run)["settings"], results.metrics(folder, run)["training"]
        sampler, end, exponent = settings["sampler"], settings["epoch_end"], training["exponent"]
        title = sampler.replace("_", " ").capitalize() if exponent is None else f"α = {exponent:g}"
        rule = TOKENS if isinstance(end, dict) else PAPER if end == "depletion" else STEPS
        ends_by = (PAPER, STEPS, TOKENS) if sampler == "sequential" and end == "depletion" else (rule,)
        if set(rules) & set(ends_by):
            found.append(Sampled(run, title, exponent, ends_by, training["tokens"]))
    if not found:
        raise MtbertError(
            f"params.yaml: figures.{figure} names no run of the kind {' or '.join(rules)}; add one whose epoch_end is depletion "
            "(the paper's rule), one_pass (equal steps) or {tokens: one_pass} (equal tokens)"
        )
    return found


def _scored(found: Iterable[Sampled], rules: Iterable[str], statistics: Statistics) -> pd.DataFrame:
    """The score of each run by rule and metric, with its interval: one row each, in the order of the rules."""
    columns = ["sampler", "exponent", "rule", "tokens", "metric", "value", "low", "high"]
    rows = [
        (one.title, one.exponent, rule, one.tokens, metric, *statistics.metric(one.run, metric))
        for rule in rules
        for one in found
        if rule in one.rules
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=columns).astype({"exponent": float, "value": float, "low": float, "high": float})


def _curve(folder: Path, run: str) -> pd.DataFrame:
    measures = [f"dev_{metric}" for metric in METRICS]
    return results.history(folder, run, ("tokens", *measures))[["epoch", "tokens", *measures]]


def _lines(axes: Axes, found: Iterable[Sampled], curves: dict[str, pd.DataFrame], column: str) -> None:
    for one in found:
        curve = curves[one.run]
        axes.plot(curve["tokens"] / 1e3, curve[column], ".-", color=_colour(one), label=one.title, linewidth=1.2)


def _bars(axes: Axes, x: pd.Series, points: pd.DataFrame, rule: Any, line: str = "none") -> None:
    marker, colour = LOOKS[rule]
    bars = points[["low", "high"]].sub(points["value"], axis=0).abs().to_numpy().T
    style: Any = {
        "marker": marker,
        "linestyle": line,
        "color": colour,
        "markersize": 5,
        "elinewidth": 0.8,
        "capsize": 2,
    }
    axes.errorbar(x, points["value"], bars, label=rule, **style)


def _colour(one: Sampled) -> Any:
    if one.exponent is None:
        return OTHERS.get(one.title, "black")
    return matplotlib.colormaps["viridis"](0.9 * float(np.clip(one.exponent, 0, 1)))


def _spreads(data: pd.DataFrame, stopped: Iterable[Sampled]) -> str:
    """The range of tokens by the paper's rule, and of scores by each rule, for the caption."""
    tokens = [one.tokens for one in stopped]
    ranges = [
        f"{scores.max() - scores.min():.3f} {'by the' if rule == PAPER else 'at'} {rule}"
        for rule, scores in data.groupby("rule", sort=False)["value"]
    ]
    return (
        f"By the paper's rule a sampler trains on {min(tokens):,} to {max(tokens):,} tokens. "
        f"Highest minus lowest score: {', '.join(ranges)}; by chance alone, it would be above 0 for equal samplers too."
    )


FIGURES = {"sampler_exponent": sampler_exponent, "sampler_curves": sampler_curves, "sampler_amount": sampler_amount}
