"""Contradicted labels: the rule by hand, and planted wrong labels."""

import numpy as np

from mtbert.evaluation.label_noise import contradicted


def test_the_rule_by_hand() -> None:
    """Means of self-confidence: about 0.6 over label 0, 0.7 over label 1."""
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.1, 0.4, 0.71, 0.6, 0.8]])
    assert contradicted(labels, probabilities).tolist() == [[False, False, True, False, False]]
    assert not contradicted(np.zeros(3), np.array([[0.9, 0.2, 0.1]])).any(), (
        "no example shows how sure of label 1 a model is"
    )
    unsure = np.array([[0.3, 0.45, 0.2, 0.3, 0.4]])
    assert not contradicted(labels, unsure)[:, :3].any(), "the model predicts no label 1"


def test_planted_wrong_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(1000) < 0.4
    flipped = rng.random(1000) < 0.05
    logits = 2.5 * np.where(truth, 1, -1) + rng.normal(0, 1.5, (3, 1000))
    found = contradicted((truth ^ flipped).astype(int), 1 / (1 + np.exp(-logits))).sum(0) > 1
    assert found[flipped].mean() > 0.5
    assert found[~flipped].mean() < 0.02
