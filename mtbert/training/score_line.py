"""Puts the scores of a head that was trained by a correlation on the labels' scale."""

import sys

import numpy as np
import torch

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.predict import raw_scores
from mtbert.training.engine import Engine

ROWS = 4096  # training examples that the line is fitted to; more would not change it visibly


def fit_line(engine: Engine, task: str, split: Split, wrapper: Wrapper, seed: int) -> None:
    """Replace the head's score s by a + b s, the least-squares line of training labels over scores, in the head's own weights.

    The correlation stays as it is, since b > 0. If scores do not rise with the labels, a line would reverse their order, and
    nothing is changed.

    Args:
        split: the task's training split.
        seed: chooses the examples, if there are more than `ROWS`.
    """
    assert split.labels is not None, "training splits are labelled"
    # Five words, as in evaluation/development.py; 3 tells it from other uses of the seed.
    rows = np.sort(np.random.default_rng([seed, 0, 0, 0, 3]).permutation(len(split))[:ROWS])
    with engine.inference():
        scores = raw_scores(engine.model, task, split, wrapper, rows=rows).astype(np.float64)
    labels = split.labels[rows].astype(np.float64)
    spread, together = scores.var(), ((scores - scores.mean()) * (labels - labels.mean())).mean()
    if spread == 0 or together <= 0:
        print(
            f"warning: {task}: scores do not rise with the labels, so they were not mapped to the scale of the labels",
            file=sys.stderr,
        )
        return
    slope = together / spread
    linear = engine.model.heads[task].linear
    assert isinstance(linear, torch.nn.Linear), "cosines have a scale of their own"
    with torch.no_grad():
        linear.weight.mul_(slope)
        linear.bias.mul_(slope).add_(labels.mean() - slope * scores.mean())
