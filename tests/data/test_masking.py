"""Masked tokens: how many, what becomes of them, and that nothing else changes."""

import numpy as np

from mtbert.data.masking import masked

IDS = np.arange(10, 50_010) % 1000
FIXED = IDS % 10 == 0


def test_fifteen_percent_are_chosen_and_most_of_them_hidden() -> None:
    found = masked(IDS, FIXED, 5000, 1000, np.random.default_rng(3))
    share = len(found.places) / (~FIXED).sum()
    assert abs(share - 0.15) < 0.006 and not FIXED[found.places].any()
    assert (found.targets == IDS[found.places]).all()
    hidden = found.ids[found.places]
    random = (hidden != 5000) & (hidden != found.targets)
    for what, wanted in ((hidden == 5000, 0.8), (random, 0.1), (hidden == found.targets, 0.1)):
        assert abs(what.mean() - wanted) < 0.02
    assert len(set(hidden[random])) > 300, "any wordpiece of the vocabulary"
    untouched = np.ones(len(IDS), bool)
    untouched[found.places] = False
    assert (found.ids[untouched] == IDS[untouched]).all()


def test_a_short_text_has_a_token_to_predict() -> None:
    fixed = np.array([True, False, True])
    for seed in range(20):
        assert masked(np.array([1, 7, 2]), fixed, 4, 9, np.random.default_rng(seed)).places.tolist() == [1]
