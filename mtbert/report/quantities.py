"""Quantities that the paper makes claims about, each with an interval.

It is a 95% interval over dev examples, of width 0 for a count; an epoch of convergence has the quartiles over runs instead.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from math import hypot
from typing import NamedTuple

import numpy as np
import pandas as pd

from mtbert.evaluation.metrics import pearson
from mtbert.evaluation.resampling import measured, resampled, wilson
from mtbert.report import results
from mtbert.report.evidence import Evidence, NotRun
from mtbert.report.statistics import OVERALL, RESAMPLES, SEED, UNDEFINED, Interval
from mtbert.tasks.paper import CURVE, METRIC_OF, STS, TASKS

UNITS = {OVERALL: "score", **{task: {"pearson": "r"}.get(metric, metric) for task, metric in METRIC_OF.items()}}

PRINTED = 1e-5  # larger than the rounding in the examples' files
CLOSE = 0.01  # a run has converged when its score is this close to its highest
LEAST_EPOCHS = 7  # fewer do not show convergence "at around epoch 4 to 6"


class CannotTell(Exception):
    """The quantity cannot be measured on these runs; the message says why."""


class Quantity(NamedTuple):
    """What a claim is about, in words that "is above 0" completes, its unit, and the function that measures it.

    The function may raise `CannotTell` and `NotRun`.
    """

    text: str
    unit: str
    measure: Callable[[Evidence], Interval]


def gain(run: str, over: str, metric: str = OVERALL) -> Quantity:
    """The run's metric minus that of the run `over`, on the same dev examples."""
    text = f"gain in {_title(metric)} of {run} over {over}"
    return Quantity(text, UNITS[metric], lambda evidence: evidence.difference(over, run, metric))


def relative_gain(run: str, over: str, of: str) -> Quantity:
    """The difference of two overall scores in per cent of that of the run `of`, which is taken as exact."""

    def measure(evidence: Evidence) -> Interval:
        whole = evidence.metric(of, OVERALL).value
        return _scaled(evidence.difference(over, run, OVERALL), 100 / whole if whole else None)

    return Quantity(f"gain in {_title(OVERALL)} of {run} over {over}, relative to {of},", "%", measure)


def excess(first: Quantity, second: Quantity, *, independent: bool = False) -> Quantity:
    """The first minus the second.

    Args:
        independent: whether the two are measured on different examples. Then the halves of their intervals add like standard errors
            (Zou and Donner, 2008). Otherwise they are added in full, which is wide enough however the two depend on each other.
    """

    def measure(evidence: Evidence) -> Interval:
        found = np.array([first.measure(evidence), second.measure(evidence)], dtype=float)
        if np.isnan(found).any():
            return UNDEFINED
        (value, low, high), (other, other_low, other_high) = found.tolist()
        add = hypot if independent else operator.add
        difference = value - other
        below, above = add(value - low, other_high - other), add(high - value, other - other_low)
        return Interval(difference, difference - below, difference + above)

    return Quantity(f"({first.text}) minus ({second.text})", first.unit, measure)


def spread(*quantities: Quantity) -> Quantity:
    """The largest of the quantities minus the smallest; its interval is wide enough for quantities of different examples."""

    def measure(evidence: Evidence) -> Interval:
        found = np.array([quantity.measure(evidence) for quantity in quantities], dtype=float)
        if np.isnan(found).any():
            return UNDEFINED
        values, lows, highs = found.T
        low, high = max(0.0, float(lows.max() - highs.min())), float(highs.max() - lows.min())
        return Interval(float(np.ptp(values)), low, high)

    text = f"largest minus smallest of ({'), ('.join(one.text for one in quantities)})"
    return Quantity(text, quantities[0].unit, measure)


def trained(run: str, of: str, *, bert_base: bool = False) -> Quantity:
    """The parameters that the run trains, in per cent of those of another run.

    Args:
        bert_base: count with BERT-base, the paper's encoder, in place of the encoder at hand, since the ratio depends on it.
    """
    text = f"number of parameters that {run} trains{_with(bert_base)}, relative to {of},"
    return Quantity(text, "%", partial(_trained, run, of, bert_base, 0))


def more_trained(run: str, over: str, *, bert_base: bool = False) -> Quantity:
    """How many more parameters the run trains than another, in per cent; see `trained`."""
    text = f"number of parameters that {run} trains more than {over}{_with(bert_base)}, relative to {over},"
    return Quantity(text, "%", partial(_trained, run, over, bert_base, 100))


def millions_more_trained(run: str, over: str) -> Quantity:
    """How many more parameters the run trains than another with BERT-base, in millions."""
    return Quantity(
        f"number of parameters, in millions, that {run} trains more than {over}{_with(True)}",
        "million",
        lambda evidence: _exact((evidence.trained_with_bert_base(run) - evidence.trained_with_bert_base(over)) / 1e6),
    )


def _with(bert_base: bool) -> str:
    return " with BERT-base" if bert_base else ""


def _trained(run: str, of: str, bert_base: bool, minus: float, evidence: Evidence) -> Interval:
    count = evidence.trained_with_bert_base if bert_base else evidence.trained
    return _exact(100 * count(run) / count(of) - minus)


def batches(run: str, task: str, *, share: bool = False) -> Quantity:
    """The batches of a task that the run was trained on, or their share of all batches in per cent."""

    def measure(evidence: Evidence) -> Interval:
        drawn = evidence.metrics(run)["training"]["batches"]
        if task not in drawn:
            raise NotRun(f"{run} was not trained on {task}.")
        return _exact(100 * drawn[task] / sum(drawn.values()) if share else drawn[task])

    what, unit = ("share", "%") if share else ("number", "batches")
    return Quantity(f"{what} of {TASKS[task].title} batches in the training of {run}", unit, measure)


def converged(runs: Sequence[str], metric: str, title: str) -> Quantity:
    """The first epoch in which a run's dev score comes close to its highest: median and quartiles over the runs at hand.

    Args:
        metric: `overall` or a task, as the run watched it after each epoch.
        title: what the runs have in common, in words.
    """

    def first_epoch(evidence: Evidence, run: str) -> float:
        curve = evidence.curve(run, f"dev_{metric}")
        if len(curve) < LEAST_EPOCHS:
            raise CannotTell(f"Convergence needs {LEAST_EPOCHS} epochs or more; {run} has {len(curve)}.")
        if curve.isna().all():
            raise CannotTell(f"{run} has no {_title(metric)} after any epoch.")
        return float(curve.index[curve >= curve.max() - CLOSE][0])

    def measure(evidence: Evidence) -> Interval:
        there = [run for run in runs if run in evidence.statistics.values]
        # If none is there, the first one raises NotRun.
        epochs = [first_epoch(evidence, run) for run in there or runs[:1]]
        low, median, high = (float(end) for end in np.quantile(epochs, (0.25, 0.5, 0.75)))
        return Interval(median, low, high)

    over = " (median and quartiles)" if len(runs) > 1 else ""
    text = f"first epoch of {title}{over} with a dev {_title(metric)} within {CLOSE:g} of its highest"
    return Quantity(text, "epochs", measure)


def last_accuracy(run: str, part: str) -> Quantity:
    """The run's accuracy on SST after its last epoch, on the watched examples of dev or of training, with Wilson's interval.

    Args:
        part: `dev` or `train`.
    """

    def measure(evidence: Evidence) -> Interval:
        accuracy = evidence.curve(run, f"{part}_{CURVE.name}").iloc[-1]
        examples = results.watched_examples(evidence.folder, run, part)
        return Interval(*wilson(round(accuracy * examples), examples))

    return Quantity(f"{_title(CURVE.name)} of {run} on {part} after the last epoch", UNITS[CURVE.name], measure)


Chosen = Callable[[pd.DataFrame], "pd.Series[bool]"]


def share(run: str, task: str, text: str, hits: Chosen, among: Chosen | None = None) -> Quantity:
    """The share of `hits` among some dev examples of a task, by default all, in per cent, with Wilson's interval."""

    def measure(evidence: Evidence) -> Interval:
        examples = evidence.examples(run, task)
        if among:
            examples = examples[among(examples)]
        if examples.empty:
            raise CannotTell(f"No dev example counts, so there is no {text}.")
        return _scaled(Interval(*wilson(int(hits(examples).sum()), len(examples))), 100)

    return Quantity(text, "%", measure)


def contained(run: str) -> Quantity:
    """The share of the run's STS outputs that lie in the labels' range without a bound; see `share`."""
    text = f"share of {run}'s STS outputs that lie between {STS.low:g} and {STS.high:g} without a bound"
    return share(run, STS.name, text, lambda rows: rows["score"].between(STS.low, STS.high))


def bounded(run: str) -> Quantity:
    """Pearson's r of the run's STS predictions, bounded to the labels' range as its settings ask, minus that of its unbounded outputs."""

    def measure(evidence: Evidence) -> Interval:
        table = evidence.examples(run, STS.name)
        both = table[["score", "prediction"]].to_numpy(np.float64).T
        if np.abs(both[1] - both[0]).max() < PRINTED:
            raise CannotTell(f"{run} predicts nothing outside of the labels' range, or its settings do not bound it.")
        labels, rng = table["label"].to_numpy(np.float64), np.random.default_rng(SEED)
        if np.ptp(both, axis=1).min() == 0:
            return UNDEFINED
        exact = [[pearson(labels, one) for one in both]]
        samples = np.concatenate([exact, resampled("pearson", labels, both, RESAMPLES, rng)])
        return Interval(*measured(samples[:, 1] - samples[:, 0]))

    return Quantity(f"STS r of {run} with its predictions bounded, minus that without,", UNITS[STS.name], measure)


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def _scaled(found: Interval, factor: float | None) -> Interval:
    return Interval(*(None if end is None or factor is None else end * factor for end in found))


def _title(metric: str) -> str:
    """`overall score`, `Sentiment accuracy` or `STS r`."""
    return f"{metric if metric == OVERALL else TASKS[metric].title} {UNITS[metric]}"
