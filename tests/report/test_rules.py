"""Rules give the verdict that the interval's place in the range deserves, at each boundary."""

from pathlib import Path

import pytest

from mtbert.report import rules
from mtbert.report.evidence import Evidence
from mtbert.report.quantities import CannotTell, Quantity, gain
from mtbert.report.rules import CANNOT_TELL, HOLDS, NOT_RUN, REFUTED, Rule
from mtbert.report.statistics import Interval, Statistics
from tests.report.conftest import write_run

NOTHING = Evidence(Path("results"), Statistics({}, {}), len)


def quantity(value: float, low: float, high: float) -> Quantity:
    return Quantity("x", "", lambda evidence: Interval(value, low, high))


def verdict(rule: Rule, evidence: Evidence = NOTHING) -> str:
    return rule.decide(evidence).verdict


@pytest.mark.parametrize(
    ("low", "high", "is_above", "is_below", "is_between"),
    [
        (0.31, 0.4, HOLDS, REFUTED, HOLDS),
        (0.3, 0.4, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),  # a bound of the interval on a bound of the range
        (0.2, 0.4, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),
        (0.2, 0.3, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),
        (0.2, 0.29, REFUTED, HOLDS, REFUTED),
        (0.45, 0.49, HOLDS, REFUTED, HOLDS),
        (0.45, 0.5, HOLDS, REFUTED, CANNOT_TELL),
        (0.51, 0.6, HOLDS, REFUTED, REFUTED),
        (0.2, 0.6, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),
    ],
)
def test_verdict_by_the_place_of_the_interval(
    low: float, high: float, is_above: str, is_below: str, is_between: str
) -> None:
    of = quantity(low, low, high)
    assert verdict(rules.above(of, 0.3)) == is_above
    assert verdict(rules.below(of, 0.3)) == is_below
    assert verdict(rules.between(of, 0.3, 0.5)) == is_between


def test_two_equal_runs_show_no_gain() -> None:
    assert verdict(rules.above(quantity(0, 0, 0))) == CANNOT_TELL


def test_a_conjunction_is_as_good_as_its_weakest_part() -> None:
    holds, refuted, open_ = (rules.above(quantity(value, value - 1, value + 1)) for value in (2, -2, 0))
    missing = rules.above(gain("a", "b"))
    assert verdict(rules.all_of(holds, holds)) == HOLDS
    assert verdict(rules.all_of(holds, open_)) == CANNOT_TELL
    assert verdict(rules.all_of(open_, missing, holds)) == NOT_RUN
    found = rules.all_of(holds, missing, refuted, open_).decide(NOTHING)
    assert (found.verdict, found.number, found.note) == (
        REFUTED,
        -2,
        "The number and interval are of this part: x is above 0.",
    )


def test_quantities_are_compared_by_their_difference() -> None:
    first, second = quantity(3, 2, 5), quantity(1, 0.5, 1.5)
    assert verdict(rules.greater(first, second)) == HOLDS == verdict(rules.less(second, first))
    assert verdict(rules.greater(first, second, quantity(6, 5.5, 7))) == REFUTED
    assert verdict(rules.less(second, first, quantity(2, 1, 3))) == CANNOT_TELL


def test_a_condition_on_the_sizes(tmp_path: Path) -> None:
    write_run(tmp_path / "run", training={"sizes": {"sst": 100, "quora": 500, "sts": 50}})
    evidence, rule = Evidence(tmp_path, Statistics({"run": {}}, {}), len), rules.above(quantity(1, 0.5, 2))
    assert verdict(rules.imbalanced("run", 10, rule), evidence) == HOLDS, "500 is ten times 50"
    found = rules.imbalanced("run", 10.1, rule).decide(evidence)
    assert (found.verdict, found.number) == (CANNOT_TELL, 1)
    parts_of_it = rules.imbalanced("run", 10.1, rules.all_of(rule, rules.above(quantity(2, 1, 3)))).decide(evidence)
    assert parts_of_it.note == f"{found.note} The number and interval are of this part: {rule.text}."
    assert verdict(rules.imbalanced("absent", 10, rules.above(gain("a", "b")))) == NOT_RUN


def test_without_a_number_the_verdict_has_the_reason() -> None:
    missing = rules.above(gain("a", "b"))
    assert missing.decide(NOTHING) == (None, None, None, "score", NOT_RUN, "There are no results of b and a.")
    undefined = Evidence(Path("results"), Statistics({"a": {}, "b": {}}, {("b", "a"): {}}), len)
    found = missing.decide(undefined)
    assert (found.verdict, found.note) == (
        CANNOT_TELL,
        "A score is undefined, for example because a run predicts a constant.",
    )

    def measure(evidence: Evidence) -> Interval:
        raise CannotTell("So it is.")

    assert rules.above(Quantity("x", "%", measure)).decide(NOTHING)[3:] == ("%", CANNOT_TELL, "So it is.")
