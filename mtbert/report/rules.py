"""Rules that decide a claim of the paper: a quantity, measured with an interval, and the range in which the claim places it.

The claim holds if the whole interval lies inside the range, is refuted if the whole interval lies outside, and cannot be decided at
this size otherwise. Intervals are of 95% over dev examples; a count has an interval of width 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtbert.report import results
from mtbert.report.statistics import OVERALL, UNDEFINED, Interval, Statistics
from mtbert.tasks.paper import CURVE, METRIC_OF, TASKS

HOLDS, REFUTED, CANNOT_TELL, NOT_RUN = "holds", "refuted", "cannot tell", "not run"
WEAKEST_FIRST = (REFUTED, NOT_RUN, CANNOT_TELL, HOLDS)
UNITS = {OVERALL: "score", **{task: {"pearson": "r"}.get(metric, metric) for task, metric in METRIC_OF.items()}}

NORMAL = 1.96  # half the width of a 95% interval, in standard errors
CLOSE = 0.01  # a run has converged when its score is this close to its highest
LEAST_EPOCHS = 7  # fewer do not show convergence "at around epoch 4 to 6"
BERT_BASE = (100e6, 120e6)  # parameters of models with BERT-base's encoder


class Outcome(NamedTuple):
    """A decided claim. Number and interval are None if there are none."""

    number: float | None
    low: float | None
    high: float | None
    unit: str
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """What decides the claims.

    Attributes:
        folder: the results folder, as evaluate writes it.
        statistics: of the runs that the claims may use.
    """

    folder: Path
    statistics: Statistics

    def difference(self, first: str, second: str, metric: str) -> Interval:
        """`second` minus `first`."""
        self._require(first, second)
        return Interval(*self.statistics.difference(first, second, metric)[:3])

    def metric(self, run: str, metric: str) -> Interval:
        self._require(run)
        return self.statistics.metric(run, metric)

    def metrics(self, run: str) -> dict[str, Any]:
        self._require(run)
        return results.metrics(self.folder, run)

    def examples(self, run: str, task: str) -> pd.DataFrame:
        self._require(run)
        return results.examples(self.folder, run, task)

    def history(self, run: str) -> pd.DataFrame:
        """A row per epoch of training, without the untrained model's."""
        self._require(run)
        found = results.history(self.folder, run)
        return found[found["epoch"] > 0]

    def _require(self, *runs: str) -> None:
        if missing := [run for run in runs if run not in self.statistics.values]:
            raise Unanswered(NOT_RUN, f"There are no results of {' and '.join(missing)}.")


class Unanswered(Exception):
    """There is no number that could decide a claim.

    Args:
        verdict: CANNOT_TELL or NOT_RUN.
    """

    def __init__(self, verdict: str, note: str) -> None:
        super().__init__(note)
        self.verdict = verdict


class Quantity(NamedTuple):
    """A quantity that claims are about, in words, and the function that measures it; it may raise `Unanswered`."""

    text: str
    unit: str
    measure: Callable[[Evidence], Interval]


class Rule(NamedTuple):
    """What decides a claim, in words and as a function."""

    text: str
    decide: Callable[[Evidence], Outcome]


def between(quantity: Quantity, low: float, high: float) -> Rule:
    """The quantity is above `low` and below `high`."""
    text = f"{quantity.text} is between {_bound(low, quantity.unit)} and {_bound(high, quantity.unit)}"
    return Rule(text, partial(_decide, quantity, low, high))


def above(quantity: Quantity, size: float = 0) -> Rule:
    """The quantity is above `size`."""
    return Rule(f"{quantity.text} is above {_bound(size, quantity.unit)}", partial(_decide, quantity, size, inf))


def below(quantity: Quantity, size: float) -> Rule:
    """The quantity is below `size`."""
    return Rule(f"{quantity.text} is below {_bound(size, quantity.unit)}", partial(_decide, quantity, -inf, size))


def greater(first: Quantity, *others: Quantity) -> Rule:
    """The first quantity is above each of the others."""
    text = f"{first.text} is above {', and above '.join(other.text for other in others)}"
    return all_of(*(above(excess(first, other)) for other in others))._replace(text=text)


def less(first: Quantity, *others: Quantity) -> Rule:
    """The first quantity is below each of the others."""
    text = f"{first.text} is below {', and below '.join(other.text for other in others)}"
    return all_of(*(above(excess(other, first)) for other in others))._replace(text=text)


def _decide(quantity: Quantity, low: float, high: float, evidence: Evidence) -> Outcome:
    try:
        found = quantity.measure(evidence)
    except Unanswered as reason:
        return Outcome(None, None, None, quantity.unit, reason.verdict, str(reason))
    if found.value is None or found.low is None or found.high is None:
        return Outcome(
            None, None, None, quantity.unit, CANNOT_TELL, "The score of a run that predicts a constant is undefined."
        )
    if low < found.low and found.high < high:
        verdict = HOLDS
    elif found.high < low or high < found.low:
        verdict = REFUTED
    else:
        verdict = CANNOT_TELL
    return Outcome(*found, quantity.unit, verdict)


def all_of(*rules: Rule) -> Rule:
    """All of the rules hold. The outcome is that of the weakest: one that is refuted, else not run, else undecided."""

    if len(rules) == 1:
        return rules[0]

    def decide(evidence: Evidence) -> Outcome:
        found = [(rule, rule.decide(evidence)) for rule in rules]
        rule, weakest = min(found, key=lambda pair: WEAKEST_FIRST.index(pair[1].verdict))
        return weakest if weakest.number is None else weakest._replace(note=f"The number is of this part: {rule.text}.")

    return Rule("; and ".join(rule.text for rule in rules), decide)


def imbalanced(run: str, times: float, rule: Rule) -> Rule:
    """The rule, left open unless the run's largest training set is at least `times` as large as its smallest."""

    def decide(evidence: Evidence) -> Outcome:
        found = rule.decide(evidence)
        if found.number is None:
            return found
        sizes = evidence.metrics(run)["training"]["sizes"].values()
        if (ratio := max(sizes) / min(sizes)) >= times:
            return found
        note = f"The largest training set is {ratio:.1f} times as large as the smallest; {times:g} times are needed."
        return found._replace(verdict=CANNOT_TELL, note=note)

    return Rule(rule.text, decide)


def undecidable(text: str, note: str) -> Rule:
    """What would decide the claim, and why no run of ours does."""
    return Rule(text, lambda evidence: Outcome(None, None, None, "", NOT_RUN, note))


def gain(run: str, over: str, metric: str = OVERALL) -> Quantity:
    """The run's metric minus that of the run `over`, on the same dev examples."""
    return Quantity(
        f"gain in {_title(metric)} of {run} over {over}",
        UNITS[metric],
        lambda evidence: evidence.difference(over, run, metric),
    )


def relative_gain(run: str, over: str, of: str) -> Quantity:
    """The difference of two overall scores in per cent of the score of the run `of`, which is taken as known."""

    def measure(evidence: Evidence) -> Interval:
        whole = evidence.metric(of, OVERALL).value
        return _scaled(evidence.difference(over, run, OVERALL), 100 / whole if whole else None)

    return Quantity(f"gain in {_title(OVERALL)} of {run} over {over}, relative to {of},", "%", measure)


def excess(first: Quantity, second: Quantity) -> Quantity:
    """The first minus the second.

    Each end of the interval is the least favourable difference of ends, so it is wide enough however the two depend on each other.
    """

    def measure(evidence: Evidence) -> Interval:
        one, other = first.measure(evidence), second.measure(evidence)
        if None in (*one, *other):
            return UNDEFINED
        return Interval(one.value - other.value, one.low - other.high, one.high - other.low)  # type: ignore[operator]

    return Quantity(f"({first.text}) minus ({second.text})", first.unit, measure)


def spread(*quantities: Quantity) -> Quantity:
    """The largest of the quantities minus the smallest; the interval is as wide as that of `excess`."""

    def measure(evidence: Evidence) -> Interval:
        found = np.array([quantity.measure(evidence) for quantity in quantities], dtype=float)
        if np.isnan(found).any():
            return UNDEFINED
        values, lows, highs = found.T
        low, high = max(0.0, float(lows.max() - highs.min())), float(highs.max() - lows.min())
        return Interval(float(np.ptp(values)), low, high)

    return Quantity(
        f"largest minus smallest of ({'), ('.join(one.text for one in quantities)})", quantities[0].unit, measure
    )


def trained(run: str, of: str, *, bert_base: bool = False) -> Quantity:
    """The parameters that the run trains, in per cent of those of another run.

    Args:
        bert_base: leave the claim open with an encoder of another size, on which the ratio depends.
    """
    return Quantity(
        f"number of parameters that {run} trains, relative to {of},", "%", partial(_trained, run, of, bert_base, 0)
    )


def more_trained(run: str, over: str, *, bert_base: bool = False) -> Quantity:
    """How many more parameters the run trains than another, in per cent; see `trained`."""
    return Quantity(
        f"number of parameters that {run} trains more than {over}, relative to {over},",
        "%",
        partial(_trained, run, over, bert_base, 100),
    )


def _trained(run: str, of: str, bert_base: bool, less: float, evidence: Evidence) -> Interval:
    counts, others = (evidence.metrics(name)["parameters"] for name in (run, of))
    if bert_base and not BERT_BASE[0] < others["total"] < BERT_BASE[1]:
        size = f"{others['total'] / 1e6:.0f} million parameters"
        raise Unanswered(CANNOT_TELL, f"The ratio depends on the encoder: the paper's is BERT-base, {of} has {size}.")
    return _exact(100 * counts["trainable"] / others["trainable"] - less)


def batches(run: str, task: str, *, share: bool = False) -> Quantity:
    """The batches of a task that the run was trained on, or their share of all batches in per cent."""

    def measure(evidence: Evidence) -> Interval:
        drawn = evidence.metrics(run)["training"]["batches"]
        return _exact(100 * drawn[task] / sum(drawn.values()) if share else drawn[task])

    what = "share" if share else "number"
    return Quantity(
        f"{what} of {TASKS[task].title} batches in the training of {run}", "%" if share else "batches", measure
    )


def converged(runs: Sequence[str], metric: str, title: str) -> Quantity:
    """The first epoch in which a run's dev score comes close to its highest: median and quartiles over the runs at hand.

    Args:
        metric: `overall` or a task, as the run watched it after each epoch.
        title: what the runs have in common, in words.
    """

    def first_epoch(evidence: Evidence, run: str) -> float:
        history = evidence.history(run)
        if len(history) < LEAST_EPOCHS:
            raise Unanswered(CANNOT_TELL, f"Convergence needs {LEAST_EPOCHS} epochs or more; {run} has {len(history)}.")
        scores = history[f"dev_{metric}"].dropna()
        if scores.empty:
            raise Unanswered(CANNOT_TELL, f"{run} has no {_title(metric)} after any epoch.")
        return float(history["epoch"][scores >= scores.max() - CLOSE].min())

    def measure(evidence: Evidence) -> Interval:
        there = [run for run in runs if run in evidence.statistics.values]
        epochs = [first_epoch(evidence, run) for run in there or runs[:1]]
        low, median, high = (float(end) for end in np.quantile(epochs, (0.25, 0.5, 0.75)))
        return Interval(median, low, high)

    over = " (median and quartiles)" if len(runs) > 1 else ""
    return Quantity(
        f"first epoch of {title}{over} with a dev {_title(metric)} within {CLOSE:g} of its highest", "epochs", measure
    )


def overfitting(run: str) -> Quantity:
    """Accuracy of the last epoch on SST's training examples minus dev; each is measured on as many examples as dev has."""

    def measure(evidence: Evidence) -> Interval:
        last, examples = evidence.history(run).iloc[-1], evidence.metrics(run)["dev"][CURVE.name]["n"]
        train, dev = float(last[f"train_{CURVE.name}"]), float(last[f"dev_{CURVE.name}"])
        half = NORMAL * sqrt((train * (1 - train) + dev * (1 - dev)) / examples)
        return Interval(train - dev, train - dev - half, train - dev + half)

    return Quantity(f"{_title(CURVE.name)} of {run} after the last epoch, train minus dev,", UNITS[CURVE.name], measure)


Chosen = Callable[[pd.DataFrame], "pd.Series[bool]"]


def share(run: str, task: str, text: str, hits: Chosen, among: Chosen) -> Quantity:
    """The share of `hits` among some dev examples of a task, in per cent, with Wilson's interval."""

    def measure(evidence: Evidence) -> Interval:
        from scipy.stats import binomtest

        examples = evidence.examples(run, task)
        examples = examples[among(examples)]
        if examples.empty:
            raise Unanswered(CANNOT_TELL, f"There are none, so there is no {text}.")
        found = binomtest(int(hits(examples).sum()), len(examples))
        low, high = found.proportion_ci(method="wilson")
        return _scaled(Interval(float(found.statistic), float(low), float(high)), 100)

    return Quantity(text, "%", measure)


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def _scaled(found: Interval, factor: float | None) -> Interval:
    return Interval(*(None if end is None or factor is None else end * factor for end in found))


def _title(metric: str) -> str:
    """`overall score`, `Sentiment accuracy` or `STS r`."""
    return f"{metric if metric == OVERALL else TASKS[metric].title} {UNITS[metric]}"


def _bound(value: float, unit: str) -> str:
    return f"{value:g}{'%' if unit == '%' and value else ''}".replace("-", "−")
