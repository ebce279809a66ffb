"""Quantities measure what was planted in results, and say why they cannot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from mtbert.report import quantities
from mtbert.report.evidence import Evidence, NotRun
from mtbert.report.measure import measure
from mtbert.report.quantities import CannotTell, Quantity
from mtbert.report.rules import CANNOT_TELL, HOLDS, REFUTED, above, below
from mtbert.report.statistics import UNDEFINED, Interval, Statistics
from mtbert.tabular import write_csv
from tests.report.conftest import write_run


def count(settings: Mapping[str, Any]) -> int:
    """What a run with these settings would train with BERT-base; these tests plant it."""
    return round(settings["planted"] * 1e6)


SETTINGS = {"epoch_end": 60, "batch_size": 10, "heads": {"sst": {}}}  # 300 examples are watched
NOTHING = Evidence(Path("results"), Statistics({}, {}), count)


def quantity(value: float, low: float, high: float) -> Quantity:
    return Quantity("x", "", lambda evidence: Interval(value, low, high))


def test_differences_of_quantities_take_the_least_favourable_ends() -> None:
    first, second = quantity(3, 2, 5), quantity(1, 0.5, 1.5)
    assert quantities.excess(first, second).measure(NOTHING) == Interval(2, 0.5, 4.5)
    independent = quantities.excess(first, second, independent=True).measure(NOTHING)
    assert independent == pytest.approx((2, 2 - np.hypot(1, 0.5), 2 + np.hypot(2, 0.5)))
    assert quantities.spread(first, second, quantity(2, 1, 3)).measure(NOTHING) == Interval(2, 0.5, 4.5)
    assert quantities.spread(first, quantity(2, 1, 3)).measure(NOTHING).low == 0, "they may be equal"
    undefined = Quantity("x", "", lambda evidence: UNDEFINED)
    for of in (quantities.excess(first, undefined), quantities.spread(first, undefined)):
        assert of.measure(NOTHING) == UNDEFINED


def test_what_the_bound_of_predictions_is_worth(tmp_path: Path) -> None:
    """Of outputs that are right but for some above 5; and an interval as from scipy's own bootstrap."""
    rng = np.random.default_rng(3)
    labels = rng.uniform(0, 5, 300)
    scores = labels + rng.normal(0, 0.4, 300) + np.where(labels > 4.5, rng.exponential(2, 300), 0)
    evidence = Evidence(tmp_path, Statistics({"run": {}, "within": {}, "constant": {}}, {}), count)
    for run, raw in (("run", scores), ("within", scores.clip(0, 5)), ("constant", -1 - labels)):
        rows = [
            [n, "a", "b", label, min(max(one, 0), 5), one]
            for n, (label, one) in enumerate(zip(labels, raw, strict=True))
        ]
        head = ["id", "sentence1", "sentence2", "label", "prediction", "score"]
        write_csv(tmp_path / run / "examples/sts-dev.csv", head, rows)
        write_run(tmp_path / run, dev={"sts": {}})

    def difference(labels: np.ndarray, scores: np.ndarray) -> float:
        return float(np.corrcoef(labels, scores.clip(0, 5))[0, 1] - np.corrcoef(labels, scores)[0, 1])

    found = quantities.bounded("run").measure(evidence)
    theirs = bootstrap(
        (labels, scores), difference, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0
    )
    ends = theirs.confidence_interval
    assert (
        found.value == pytest.approx(difference(labels, scores), abs=1e-6) and found.low is not None and found.low > 0
    )
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=0.1)
    with pytest.raises(CannotTell, match="nothing outside"):
        quantities.bounded("within").measure(evidence)
    assert quantities.bounded("constant").measure(evidence) == UNDEFINED
    inside = ((scores >= 0) & (scores <= 5)).mean()
    assert 0 < inside < 1
    assert quantities.contained("run").measure(evidence) == pytest.approx(
        (100 * inside, *(100 * end for end in wilson(inside, 300)))
    )
    assert quantities.contained("within").measure(evidence).value == 100


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
        write_run(
            tmp_path / run, SETTINGS, dev={"sst": entry}, training={"sizes": {"sst": 100}, "batches": {"sst": 10}}
        )
    return Evidence(tmp_path, measure(tmp_path, ["poor", "same", "good"]), count)


def test_planted_gains(planted: Evidence) -> None:
    gained = quantities.gain("good", "poor", "sst")
    assert above(gained).decide(planted).verdict == HOLDS
    assert above(gained, 0.4).decide(planted).verdict == REFUTED, "there is a gain, but a smaller one"
    assert above(gained, 0.3).decide(planted).verdict == CANNOT_TELL, "it is of about this size"
    assert above(quantities.gain("poor", "good", "sst")).decide(planted).verdict == REFUTED
    assert above(quantities.gain("same", "poor", "sst")).decide(planted).verdict == CANNOT_TELL, (
        "too few examples for 2 points"
    )
    assert below(quantities.gain("same", "poor", "sst"), 0.2).decide(planted).verdict == HOLDS, (
        "negligible, with that margin"
    )
    assert gained.measure(planted).value == pytest.approx(0.3)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval, by its formula."""
    z = norm.ppf(0.975)
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def test_a_share_has_the_interval_of_wilson(planted: Evidence) -> None:
    right = quantities.share("good", "sst", "s", lambda rows: rows["prediction"] == rows["label"])
    assert right.measure(planted) == pytest.approx((80, *(100 * end for end in wilson(0.8, 400))))
    low = quantities.share("good", "sst", "s", lambda rows: rows["label"] == 0, lambda rows: rows["label"] < 2)
    labels = planted.examples("good", "sst")["label"]
    assert low.measure(planted).value == pytest.approx(100 * (labels == 0).sum() / (labels < 2).sum())
    none = quantities.share(
        "good", "sst", "share of 7", lambda rows: rows["label"] == 7, lambda rows: rows["label"] == 7
    )
    with pytest.raises(CannotTell, match="No dev example counts, so there is no share of 7"):
        none.measure(planted)


def history(folder: Path, run: str, scores: Sequence[float | None]) -> None:
    rows = [(epoch, 0.5, 0.4, score) for epoch, score in enumerate(scores)]
    write_csv(folder / run / "history.csv", ["epoch", "train_sst", "dev_sst", "dev_overall"], rows)


def test_convergence(planted: Evidence) -> None:
    """The untrained model does not count, and later epochs that are less than a point better do not either."""
    history(planted.folder, "poor", [0.9, 0.1, 0.2, 0.3, 0.495, 0.503, 0.4, 0.4])
    history(planted.folder, "good", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    assert quantities.converged(["poor"], "overall", "poor").measure(planted) == Interval(4, 4, 4)
    assert quantities.converged(["poor", "good"], "overall", "both").measure(planted) == Interval(5, 4.5, 5.5)
    assert quantities.converged(["poor", "good", "absent"], "overall", "those at hand").measure(planted).value == 5
    history(planted.folder, "good", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    with pytest.raises(CannotTell, match="Convergence needs 7 epochs or more; good has 6"):
        quantities.converged(["good"], "overall", "good").measure(planted)


def test_convergence_of_undefined_scores(planted: Evidence) -> None:
    history(planted.folder, "good", [None] * 8)
    with pytest.raises(CannotTell, match="good has no overall score after any epoch"):
        quantities.converged(["good"], "overall", "good").measure(planted)
    history(planted.folder, "good", [None, 0.1, None, 0.3, 0.4, 0.5, 0.6, None])
    assert quantities.converged(["good"], "overall", "good").measure(planted).value == 6


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (quantities.converged(["good"], "quora", "good"), "good has no dev_quora"),
        (quantities.batches("good", "quora"), "good was not trained on quora"),
        (quantities.share("good", "quora", "s", lambda rows: rows["label"] == 0), "good has no head for quora"),
    ],
)
def test_a_run_without_the_task_decides_nothing(planted: Evidence, of: Quantity, reason: str) -> None:
    history(planted.folder, "good", [0.1] * 8)
    with pytest.raises(NotRun, match=reason):
        of.measure(planted)


def test_accuracy_after_the_last_epoch(planted: Evidence) -> None:
    history(planted.folder, "good", [0.4, 0.5])
    train, dev = (quantities.last_accuracy("good", part).measure(planted) for part in ("train", "dev"))
    assert (train.value, dev.value) == (0.5, 0.4)
    assert dev[1:] == pytest.approx(wilson(0.4, 300))
    assert train[1:] == pytest.approx(wilson(0.5, 100)), "there are only 100 to train on"


def test_counts_are_exact_and_with_bert_base_those_of_the_paper_s_encoder(tmp_path: Path) -> None:
    """Two runs that train 22 and 11 million parameters, and with BERT-base 110 and 27.5."""
    for run, millions, base in (("full", 22, 110), ("part", 11, 27.5)):
        training = {"batches": {"sst": 10, "quora": 30}}
        write_run(tmp_path / run, {"planted": base}, parameters={"trainable": millions * 1e6}, training=training)
    evidence = Evidence(tmp_path, Statistics({"full": {}, "part": {}}, {}), count)
    for of, value in (
        (quantities.trained("part", of="full"), 50),
        (quantities.more_trained("full", "part"), 100),
        (quantities.batches("full", "quora"), 30),
        (quantities.batches("full", "quora", share=True), 75),
        (quantities.trained("part", of="full", bert_base=True), 25),
        (quantities.more_trained("full", "part", bert_base=True), 300),
        (quantities.millions_more_trained("full", "part"), 82.5),
    ):
        assert of.measure(evidence) == Interval(value, value, value)
        assert ("with BERT-base" in of.text) == (value in (25, 300, 82.5))


def test_a_missing_run_is_named(planted: Evidence) -> None:
    for of in (
        quantities.gain("good", "absent", "sst"),
        quantities.relative_gain("absent", "good", of="good"),
        quantities.trained("absent", of="good"),
        quantities.more_trained("absent", "good", bert_base=True),
        quantities.batches("absent", "sst"),
        quantities.converged(["absent"], "overall", "it"),
        quantities.last_accuracy("absent", "dev"),
        quantities.contained("absent"),
        quantities.share("absent", "sst", "s", lambda rows: rows["label"] == 0),
        quantities.excess(quantities.gain("good", "poor", "sst"), quantities.gain("absent", "poor", "sst")),
        quantities.spread(quantities.gain("good", "poor", "sst"), quantities.gain("absent", "poor", "sst")),
    ):
        with pytest.raises(NotRun, match="There are no results of absent"):
            of.measure(planted)
