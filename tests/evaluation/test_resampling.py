"""The bootstrap against scipy's, and by simulation: coverage, false alarms and power."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, pearsonr, ttest_1samp

from mtbert.evaluation import resampling
from mtbert.evaluation.resampling import bootstrap_p, detectable, holm, interval, mcnemar, mean, resampled, wilson
from mtbert.tasks.paper import overall

SST, QUORA, STS = 1101, 2499, 863  # examples of the course's dev sets


def drawn(metric: str, labels: np.ndarray, predictions: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    return resampled(metric, labels, predictions, resamples, np.random.default_rng(seed))


def similarities(rng: np.random.Generator, *noise: float, rows: int = STS) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the predictions of models with independent errors of these sizes."""
    labels = rng.normal(size=rows)
    return labels, np.stack([labels + size * rng.normal(size=rows) for size in noise])


@pytest.mark.parametrize("block", [resampling.BLOCK, 1000])
def test_scipys_bootstrap_gives_the_same_resamples(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(resampling, "BLOCK", block)  # 1000: ten resamples at a time
    rng = np.random.default_rng(1)
    labels, predictions = similarities(rng, 0.5, 0.8, rows=100)
    settings = {"n_resamples": 300, "paired": True, "vectorized": False, "method": "percentile"}

    def r(x: np.ndarray, y: np.ndarray) -> float:
        return pearsonr(x, y).statistic

    found = drawn("pearson", labels, predictions, 300)
    for samples, model in zip(found.T, predictions, strict=True):
        theirs = bootstrap((labels, model), r, random_state=np.random.default_rng(0), **settings)
        np.testing.assert_allclose(samples, theirs.bootstrap_distribution, rtol=1e-9)
        np.testing.assert_allclose(interval(samples), theirs.confidence_interval, rtol=1e-9)

    def difference(first: np.ndarray, second: np.ndarray, y: np.ndarray) -> float:
        return r(second, y) - r(first, y)

    paired = bootstrap((*predictions, labels), difference, random_state=np.random.default_rng(0), **settings)
    np.testing.assert_allclose(interval(found[:, 1] - found[:, 0]), paired.confidence_interval, rtol=1e-9)
    assert np.std(found[:, 1] - found[:, 0], ddof=1) == pytest.approx(paired.standard_error)

    classes, guesses = rng.integers(0, 5, 100), rng.integers(0, 5, (3, 100))
    right = (guesses[2] == classes).astype(float)
    theirs = bootstrap((right,), np.mean, random_state=np.random.default_rng(0), **settings)
    names = np.array(["a", "b", "c", "d", "e"])
    for labels_of, guesses_of in ((classes, guesses), (names[classes], names[guesses])):
        np.testing.assert_array_equal(
            drawn("accuracy", labels_of, guesses_of, 300)[:, 2], theirs.bootstrap_distribution
        )


def test_resamples_of_one_value_are_undefined_and_left_out() -> None:
    labels, predictions = np.array([0.1, 1.1, 2.3]), np.array([[1.7, 1.7, 3.1], [5.3, 5.3, 5.3]])
    samples = drawn("pearson", labels, predictions, 500)
    assert 0 < np.isnan(samples[:, 0]).mean() < 1, "a resample may hold the first two alone"
    assert np.isfinite(interval(samples[:, 0])).all()
    assert np.isnan(samples[:, 1]).all(), "rounding does not make up a correlation of a constant"


def test_p_of_known_counts() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30)
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(2 * 79 / 4096)
    assert mcnemar(first, first) == 1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    assert bootstrap_p(np.zeros(99)) == 1
    assert bootstrap_p(np.ones(99)) == bootstrap_p(-np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p(np.array([-1.0, *[2.0] * 97, np.nan, 3.0])) == pytest.approx(2 * 2 / 100)
    clear = np.random.default_rng(0).normal(6, 1, 10_000)
    assert 0 < 1128 * bootstrap_p(clear) < 0.05, (
        "significant among the pairs of 48 runs, though R = 10,000 resamples alone say 2 / (R + 1)"
    )


# ---- simulations: the standard error of a share of trials is known, so its distance from the expected share is tested


def coverage_of_accuracy(trials: int, resamples: int) -> float:
    """The share of trials whose interval holds the true accuracy, that of Table 1's sentiment."""
    truth = 0.475
    right = np.random.default_rng(2).random((trials, SST)) < truth
    samples = drawn("accuracy", np.ones(SST, bool), right, resamples)
    ends = np.quantile(samples, [0.025, 0.975], axis=0)
    return float(((ends[0] <= truth) & (truth <= ends[1])).mean())


def coverage_of_pearson(trials: int, resamples: int) -> float:
    rng, truth, held = np.random.default_rng(3), 1 / np.sqrt(1 + 0.6**2), 0
    for trial in range(trials):
        low, high = interval(drawn("pearson", *similarities(rng, 0.6), resamples, trial)[:, 0])
        held += low <= truth <= high
    return held / trials


def coverage_of_overall(trials: int, resamples: int, sst: int, quora: int, sts: int) -> tuple[float, float]:
    """The shares of trials whose intervals hold a model's true overall score, and the true difference of another model to it.

    Args:
        sst, quora, sts: how many examples each task has.
    """
    rng, lost, won = np.random.default_rng(6), 0.1, 0.15  # of what the first model has right, and wrong
    truths, samples = [], []
    for seed, (rows, chance) in enumerate(((sst, 0.475), (quora, 0.78))):
        first, change = rng.random((trials, rows)) < chance, rng.random((trials, rows))
        right = np.concatenate([first, np.where(first, change > lost, change < won)])
        truths.append(np.array([chance, chance * (1 - lost) + (1 - chance) * won]))
        samples.append(drawn("accuracy", np.ones(rows, bool), right, resamples, seed).reshape(resamples, 2, trials))
    noise = np.array([0.6, 0.8])
    truths.append(1 / np.sqrt(1 + noise**2))
    pearson = [drawn("pearson", *similarities(rng, *noise, rows=sts), resamples, trial) for trial in range(trials)]
    samples.append(np.moveaxis(np.array(pearson), 0, 2))
    truth, found = overall(*truths), overall(*samples)

    def held(value: float, of_trials: np.ndarray) -> float:
        return float(np.mean([low <= value <= high for low, high in map(interval, of_trials.T)]))

    return held(truth[0], found[:, 0]), held(truth[1] - truth[0], found[:, 1] - found[:, 0])


def false_alarms(trials: int, resamples: int, rows: int) -> tuple[float, float]:
    """The shares of trials in which some pair of four equal models differs significantly: without Holm's correction over all pairs
    of five models, and with it. The fifth is so much worse that its four pairs always differ."""
    right = np.random.default_rng(7).random((5, trials, rows)) < np.array([0.6, 0.6, 0.6, 0.6, 0.2])[:, None, None]
    samples = drawn("accuracy", np.ones(rows, bool), right.reshape(-1, rows), resamples).reshape(resamples, 5, trials)
    pairs = list(combinations(range(5), 2))
    equal = [4 not in pair for pair in pairs]
    p = np.array(
        [
            [bootstrap_p(samples[:, second, trial] - samples[:, first, trial]) for first, second in pairs]
            for trial in range(trials)
        ]
    )
    adjusted = np.array([holm(list(row)) for row in p])
    assert (adjusted[:, np.invert(equal)] < 0.05).all()
    return float((p[:, equal].min(1) < 0.05).mean()), float((adjusted[:, equal].min(1) < 0.05).mean())


def found_by_bootstrap(trials: int, resamples: int, *noise: float) -> float:
    """The share of trials in which the correlations of two models differ significantly."""
    rng, found = np.random.default_rng(4), 0
    for trial in range(trials):
        samples = drawn("pearson", *similarities(rng, *noise), resamples, trial)
        found += bootstrap_p(samples[:, 1] - samples[:, 0]) < 0.05
    return found / trials


def found_by_mcnemar(trials: int, gain: float) -> float:
    """The share of trials in which the accuracies of two models differ significantly."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(trials):
        first, change = rng.random(SST) < 0.475, rng.random(SST)
        second = np.where(first, change > 0.1, change < (0.0475 + gain) / 0.525)
        found += mcnemar(first, second) < 0.05
    return found / trials


def test_holm_calls_equal_models_different_in_one_table_of_twenty_at_most() -> None:
    without, corrected = false_alarms(2000, 500, 200)
    assert without > 0.15, "six pairs of equal models give more than one chance to be wrong"
    assert corrected < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2000)
    # Of independent p-values the rate is known: after three true differences, five true nulls are tested at 0.05 / 5 each.
    p = np.random.default_rng(8).random((10_000, 8)) * ([0] * 3 + [1] * 5)
    alarms, expected = np.mean([min(holm(list(row))[3:]) < 0.05 for row in p]), 1 - 0.99**5
    assert abs(alarms - expected) < 4 * np.sqrt(expected * (1 - expected) / 10_000)


def test_a_planted_difference_is_found_as_often_as_the_power_says() -> None:
    gain = 0.0
    for _ in range(20):  # the error of the difference grows with the difference, so iterate
        gain = detectable(np.sqrt((2 * 0.0475 + gain) / SST))
    assert 0.7 < found_by_mcnemar(400, gain) < 0.85, "the exact test has a little less power than 80%"
    assert found_by_bootstrap(50, 300, 0.6, 0.8) == 1


@pytest.mark.slow
def test_coverage_and_false_alarms_at_length() -> None:
    assert 0.94 < coverage_of_accuracy(4000, 2000) < 0.96
    assert 0.94 < coverage_of_pearson(4000, 1000) < 0.96
    assert all(0.94 < share < 0.96 for share in coverage_of_overall(4000, 1000, SST, QUORA, STS))
    assert 0.04 < found_by_bootstrap(4000, 1000, 0.6, 0.6) < 0.06
    assert 0.03 < found_by_mcnemar(4000, 0.0) < 0.06


@pytest.mark.parametrize(("hits", "examples"), [(0, 5), (3, 7), (5, 5), (900, 1101)])
def test_wilsons_interval_is_scipys(hits: int, examples: int) -> None:
    theirs = binomtest(hits, examples).proportion_ci(method="wilson")
    assert wilson(hits, examples) == pytest.approx((hits / examples, theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).exponential(size=20)
    theirs = ttest_1samp(values, 0).confidence_interval()
    assert mean(values) == pytest.approx((values.mean(), theirs.low, theirs.high))
    assert np.isnan(mean(values[:1]).low)
