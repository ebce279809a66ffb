"""Rules that decide a claim of the paper: a quantity, measured with an interval, and the range in which the claim places it.

The claim holds if the whole interval lies inside the range, is refuted if the whole interval lies outside, and otherwise we cannot
tell.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import NamedTuple

from mtbert.report.evidence import Evidence, NotRun
from mtbert.report.quantities import CannotTell, Quantity, excess

VERDICTS = HOLDS, REFUTED, CANNOT_TELL, NOT_RUN = "holds", "refuted", "cannot tell", "not run"
WEAKEST_FIRST = (REFUTED, NOT_RUN, CANNOT_TELL, HOLDS)


class Outcome(NamedTuple):
    """A decided claim.

    Attributes:
        number, low, high: the quantity and the ends of its 95% interval, in `unit`; None where nothing was measured.
        verdict: one of `VERDICTS`.
        note: why there is no number, or which part of a rule the number is of.
    """

    number: float | None
    low: float | None
    high: float | None
    unit: str
    verdict: str
    note: str = ""


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


def greater(first: Quantity, *others: Quantity, independent: bool = False) -> Rule:
    """The first quantity is above each of the others; see `excess` for `independent`."""
    text = f"{first.text} is above {', and above '.join(other.text for other in others)}"
    return all_of(*(above(excess(first, other, independent=independent)) for other in others))._replace(text=text)


def less(first: Quantity, *others: Quantity, independent: bool = False) -> Rule:
    """The first quantity is below each of the others; see `excess` for `independent`."""
    text = f"{first.text} is below {', and below '.join(other.text for other in others)}"
    return all_of(*(above(excess(other, first, independent=independent)) for other in others))._replace(text=text)


def all_of(*rules: Rule) -> Rule:
    """All of the rules hold. The outcome is that of the weakest: one that is refuted, else not run, else undecided."""
    if len(rules) == 1:
        return rules[0]

    def decide(evidence: Evidence) -> Outcome:
        found = [(rule, rule.decide(evidence)) for rule in rules]
        rule, weakest = min(found, key=lambda pair: WEAKEST_FIRST.index(pair[1].verdict))
        if weakest.number is None:
            return weakest
        return weakest._replace(note=f"The number and interval are of this part: {rule.text}.")

    return Rule("; and ".join(rule.text for rule in rules), decide)


def imbalanced(run: str, times: float, rule: Rule) -> Rule:
    """The rule, undecided unless the run's largest training set is at least `times` as large as its smallest."""

    def decide(evidence: Evidence) -> Outcome:
        found = rule.decide(evidence)
        if found.number is None:
            return found
        sizes = evidence.metrics(run)["training"]["sizes"].values()
        if (ratio := max(sizes) / min(sizes)) >= times:
            return found
        note = f"The largest training set is {ratio:.1f} times as large as the smallest; {times:g} times are needed."
        return found._replace(verdict=CANNOT_TELL, note=f"{note} {found.note}".strip())

    return Rule(rule.text, decide)


def _decide(quantity: Quantity, low: float, high: float, evidence: Evidence) -> Outcome:
    try:
        found = quantity.measure(evidence)
    except NotRun as reason:
        return Outcome(None, None, None, quantity.unit, NOT_RUN, str(reason))
    except CannotTell as reason:
        return Outcome(None, None, None, quantity.unit, CANNOT_TELL, str(reason))
    if found.value is None or found.low is None or found.high is None:
        note = "A score is undefined, for example because a run predicts a constant."
        return Outcome(None, None, None, quantity.unit, CANNOT_TELL, note)
    if low < found.low and found.high < high:
        verdict = HOLDS
    elif found.high < low or high < found.low:
        verdict = REFUTED
    else:
        verdict = CANNOT_TELL
    return Outcome(*found, quantity.unit, verdict)


def _bound(value: float, unit: str) -> str:
    return f"{value:g}{'%' if unit == '%' and value else ''}".replace("-", "−")
