"""Slices of the examples: who is in them, that a planted effect is found, and that none is found without one."""

import numpy as np
import pytest

from mtbert.evaluation.slices import LEAST, Slice, contrasts, slices


def named(texts: list[list[str]]) -> dict[str, list[bool]]:
    return {part.name: part.inside.tolist() for part in slices(texts)}


def test_negations_of_sentences_and_pairs() -> None:
    negating = ["It does n't feel like one .", "I don’t know.", "Never !", "Isn't it?", "No"]
    others = ["a notable , knotty film", "another one", "nowadays", "", "ain"]
    assert named([negating + others])["with a negation"] == [True] * 5 + [False] * 5
    first, second = ["I can go", "I cannot go", "I won't go"], ["I cant go", "I can not go", "I go"]
    found = named([first, second])
    assert found["with a negation in one sentence"] == [True, False, True]
    assert found["with a negation in both sentences"] == [False, True, False]


def test_overlap_numbers_and_length_of_pairs() -> None:
    first = ["A dog runs.", "a a b", "", "in 1,000 days", "x", "1 2 3 4"]
    second = ["a Dog sleeps", "c d", "", "in 1,000 nights of 2020", "x", "1 2 3 4"]
    parts = slices([first, second])
    overlap = [part for part in parts if part.kind == "overlap"]
    assert overlap[0].name == "with a word overlap of 0.00 to 0.33", "0 and 2 of 6"
    assert overlap[0].inside.tolist() == [False, True, False, True, False, False]
    assert overlap[-1].name == "with a word overlap of 1.00"
    assert named([first, second])["with different numbers"] == [False, False, False, True, False, False]
    lengths = [part for part in parts if part.kind == "length"]
    assert lengths[0].name == "of 0 to 2 words" and lengths[-1].name == "of 8 words"
    assert lengths[-1].inside.tolist() == [False, False, False, True, False, True]
    assert np.sum([part.inside for part in lengths], axis=0).tolist() == [1] * 6


@pytest.mark.parametrize("scores", [False, True])
def test_a_planted_effect_is_found_and_nothing_else(scores: bool) -> None:
    hits, alarms = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        parts = [Slice("made up", str(number), rng.random(800) < 0.2) for number in range(8)]
        worse = parts[3].inside

        def errors(chance: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
            return rng.exponential(chance) if scores else rng.random(800) < chance

        found = contrasts(errors(np.where(worse, 0.5, 0.25)), parts)
        hits += found[3].adjusted < 0.05 and found[3].difference.low > 0
        alarms += any(part.adjusted < 0.05 for part in contrasts(errors(np.full(800, 0.3)), parts))
    assert hits >= 37
    assert alarms <= 6, "5% of 40 are expected at most"


def test_intervals_are_newcombes_and_contain_the_truth() -> None:
    """Newcombe (1998), table II: 56 of 70 and 48 of 80, method 10."""
    inside = np.array([True] * 70 + [False] * 80)
    errors = np.array([True] * 56 + [False] * 14 + [True] * 48 + [False] * 32)
    (found,) = contrasts(errors, [Slice("kind", "name", inside)])
    assert found.difference == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found.error.value == 0.8 and found.examples == 70 and found.p == found.adjusted


def test_small_slices_and_errors_that_do_not_vary() -> None:
    inside = np.arange(100) < LEAST - 1
    assert contrasts(np.zeros(100), [Slice("kind", "few", inside), Slice("kind", "few outside", ~inside)]) == []
    half = Slice("kind", "half", np.arange(100) < 50)
    assert contrasts(np.zeros(100), [half]) == []
    (found,) = contrasts(np.zeros(100, dtype=bool), [half])
    assert found.p == 1 and found.difference.low < 0 < found.difference.high
