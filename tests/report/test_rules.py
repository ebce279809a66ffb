"""Rules decide planted truths, and each at the boundary of its range."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from mtbert.report import rules
from mtbert.report.measure import measure
from mtbert.report.rules import CANNOT_TELL, HOLDS, NOT_RUN, REFUTED, Evidence, Quantity, Rule
from mtbert.report.statistics import Interval, Statistics
from mtbert.tabular import write_csv

NOTHING = Evidence(Path("results"), Statistics({}, {}))


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
    missing = rules.undecidable("y", "No run does it.")
    assert verdict(rules.all_of(holds, holds)) == HOLDS
    assert verdict(rules.all_of(holds, open_)) == CANNOT_TELL
    assert verdict(rules.all_of(open_, missing, holds)) == NOT_RUN
    found = rules.all_of(holds, missing, refuted, open_).decide(NOTHING)
    assert (found.verdict, found.number, found.note) == (REFUTED, -2, "The number is of this part: x is above 0.")


def test_differences_of_quantities_take_the_least_favourable_ends() -> None:
    first, second = quantity(3, 2, 5), quantity(1, 0.5, 1.5)
    assert rules.excess(first, second).measure(NOTHING) == Interval(2, 0.5, 4.5)
    independent = rules.excess(first, second, independent=True).measure(NOTHING)
    assert independent == pytest.approx((2, 2 - np.hypot(1, 0.5), 2 + np.hypot(2, 0.5)))
    assert rules.spread(first, second, quantity(2, 1, 3)).measure(NOTHING) == Interval(2, 0.5, 4.5)
    assert rules.spread(first, quantity(2, 1, 3)).measure(NOTHING).low == 0, "they may be equal"
    undefined = Quantity("x", "", lambda evidence: Interval(None, None, None))
    for of in (rules.excess(first, undefined), rules.spread(first, undefined)):
        assert verdict(rules.above(of)) == CANNOT_TELL
    assert verdict(rules.greater(first, second)) == HOLDS == verdict(rules.less(second, first))
    assert verdict(rules.greater(first, second, quantity(6, 5.5, 7))) == REFUTED
    assert verdict(rules.less(second, first, quantity(2, 1, 3))) == CANNOT_TELL


@pytest.fixture
def planted(tmp_path: Path) -> Evidence:
    """Runs of SST alone, right on 50%, 52% and 80% of 400 sentences."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 400)
    for run, accuracy in (("poor", 0.5), ("same", 0.52), ("good", 0.8)):
        wrong = rng.permutation(400) >= round(400 * accuracy)
        predictions = np.where(wrong, (labels + 1) % 5, labels)
        rows = [
            [n, "text", label, predicted, 0.5]
            for n, (label, predicted) in enumerate(zip(labels, predictions, strict=True))
        ]
        write_csv(tmp_path / run / "examples/sst-dev.csv", ["id", "sentence1", "label", "prediction", "score"], rows)
        entry = {"accuracy": float(np.mean(predictions == labels)), "n": 400, "majority": 0.2}
        parts = {"dev": {"sst": entry}, "test": {}, "parameters": {}, "training": {"sizes": {"sst": 100}}}
        (tmp_path / run / "metrics.json").write_text(json.dumps(parts), encoding="utf-8")
    return Evidence(tmp_path, measure(tmp_path, ["poor", "same", "good"]))


def test_planted_gains(planted: Evidence) -> None:
    gained = rules.gain("good", "poor", "sst")
    assert verdict(rules.above(gained), planted) == HOLDS
    assert verdict(rules.above(gained, 0.4), planted) == REFUTED, "there is a gain, but a smaller one"
    assert verdict(rules.above(gained, 0.3), planted) == CANNOT_TELL, "it is of about this size"
    assert verdict(rules.above(rules.gain("poor", "good", "sst")), planted) == REFUTED
    assert verdict(rules.above(rules.gain("same", "poor", "sst")), planted) == CANNOT_TELL, (
        "too few examples for 2 points"
    )
    assert verdict(rules.below(rules.gain("same", "poor", "sst"), 0.2), planted) == HOLDS, (
        "negligible, with that margin"
    )
    assert gained.measure(planted).value == pytest.approx(0.3)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval, by its formula."""
    z = norm.ppf(0.975)
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def test_a_share_has_the_interval_of_wilson(planted: Evidence) -> None:
    right = rules.share(
        "good", "sst", "s", lambda rows: rows["prediction"] == rows["label"], lambda rows: rows["label"] >= 0
    )
    found = right.measure(planted)
    assert found == pytest.approx((80, *(100 * end for end in wilson(0.8, 400))))
    none = rules.share("good", "sst", "share of 7", lambda rows: rows["label"] == 7, lambda rows: rows["label"] == 7)
    assert rules.above(none).decide(planted)[4:] == (CANNOT_TELL, "There are none, so there is no share of 7.")


def history(folder: Path, run: str, scores: list[float]) -> None:
    rows = [(epoch, 0.5, 0.4, score) for epoch, score in enumerate(scores)]
    write_csv(folder / run / "history.csv", ["epoch", "train_sst", "dev_sst", "dev_overall"], rows)


def test_convergence(planted: Evidence) -> None:
    """The untrained model does not count, and later epochs that are less than a point better do not either."""
    history(planted.folder, "poor", [0.9, 0.1, 0.2, 0.3, 0.495, 0.503, 0.4, 0.4])
    history(planted.folder, "good", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    assert rules.converged(["poor"], "overall", "poor").measure(planted) == Interval(4, 4, 4)
    assert rules.converged(["poor", "good"], "overall", "both").measure(planted) == Interval(5, 4.5, 5.5)
    assert rules.converged(["poor", "good", "absent"], "overall", "those at hand").measure(planted).value == 5
    history(planted.folder, "good", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    found = rules.between(rules.converged(["good"], "overall", "good"), 4, 6).decide(planted)
    assert found[4:] == (CANNOT_TELL, "Convergence needs 7 epochs or more; good has 6.")


def test_accuracy_after_the_last_epoch(planted: Evidence) -> None:
    history(planted.folder, "good", [0.4, 0.5])
    train, dev = (rules.last_accuracy("good", part).measure(planted) for part in ("train", "dev"))
    assert (train.value, dev.value) == (0.5, 0.4)
    assert dev[1:] == pytest.approx(wilson(0.4, 400))
    assert train[1:] == pytest.approx(wilson(0.5, 100)), "there are only 100 to train on"


@pytest.fixture
def counted(tmp_path: Path) -> Callable[..., Evidence]:
    """counted(RUN={...}): runs with these trained and total parameters, in millions, batches and training sets."""

    def make(total: float, trained: float) -> Evidence:
        for run, millions in (("full", total), ("part", trained)):
            training = {"batches": {"sst": 10, "quora": 30}, "sizes": {"sst": 100, "quora": 500, "sts": 50}}
            parts = {"parameters": {"total": total * 1e6, "trainable": millions * 1e6}, "training": training}
            (tmp_path / run).mkdir(exist_ok=True)
            (tmp_path / run / "metrics.json").write_text(json.dumps({"dev": {}, "test": {}, **parts}), encoding="utf-8")
        return Evidence(tmp_path, Statistics({"full": {}, "part": {}}, {}))

    return make


def test_counts_are_exact(counted: Callable[..., Evidence]) -> None:
    evidence = counted(110, 27.5)
    assert rules.trained("part", of="full", bert_base=True).measure(evidence) == Interval(25, 25, 25)
    assert rules.more_trained("full", "part", bert_base=True).measure(evidence) == Interval(300, 300, 300)
    assert rules.batches("full", "quora").measure(evidence) == Interval(30, 30, 30)
    assert rules.batches("full", "quora", share=True).measure(evidence) == Interval(75, 75, 75)


def test_ratios_of_another_encoder_are_left_open(counted: Callable[..., Evidence]) -> None:
    found = rules.below(rules.trained("part", of="full", bert_base=True), 50).decide(counted(22, 12))
    assert found[4:] == (
        CANNOT_TELL,
        "The ratio depends on the encoder: the paper's is BERT-base, full has 22 million parameters.",
    )
    assert verdict(rules.below(rules.trained("part", of="full"), 50), counted(22, 12)) == REFUTED


def test_a_condition_on_the_sizes(counted: Callable[..., Evidence]) -> None:
    rule = rules.above(quantity(1, 0.5, 2))
    assert verdict(rules.imbalanced("full", 10, rule), counted(1, 1)) == HOLDS, "500 is ten times 50"
    found = rules.imbalanced("full", 10.1, rule).decide(counted(1, 1))
    assert (found.verdict, found.number) == (CANNOT_TELL, 1)
    assert verdict(rules.imbalanced("absent", 10, rules.undecidable("y", "No."))) == NOT_RUN


@pytest.mark.parametrize(
    "of",
    [
        rules.gain("good", "absent", "sst"),
        rules.relative_gain("absent", "good", of="good"),
        rules.trained("absent", of="good"),
        rules.more_trained("good", "absent", bert_base=True),
        rules.batches("absent", "sst"),
        rules.converged(["absent"], "overall", "it"),
        rules.last_accuracy("absent", "dev"),
        rules.share("absent", "sst", "s", lambda rows: rows["label"] == 0, lambda rows: rows["label"] == 0),
        rules.excess(rules.gain("good", "poor", "sst"), rules.gain("absent", "poor", "sst")),
        rules.spread(rules.gain("good", "poor", "sst"), rules.gain("absent", "poor", "sst")),
    ],
)
def test_a_missing_run_leaves_the_claim_not_run(planted: Evidence, of: Quantity) -> None:
    assert rules.above(of).decide(planted) == (None, None, None, of.unit, NOT_RUN, "There are no results of absent.")
