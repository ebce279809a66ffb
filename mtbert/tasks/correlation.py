"""Objectives that train a score for its correlation with the labels: Pearson's r and CoSENT. Shapes: B examples.

A correlation leaves the score's scale open. For a linear head, `mtbert.training.score_line` therefore fits a line to the labels when
training ends; a cosine has a scale of its own. These losses are defined on a whole batch and are not means over its examples, so
several processes cannot share a batch.
"""

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mtbert.section import Positive
from mtbert.tasks.objective import CosineScore, LinearScore
from mtbert.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Correlated(LinearScore):
    """A linear layer gives a score that is on no scale until training ends."""

    mean_of_examples: ClassVar = False

    def values_while_training(self, raw: np.ndarray, task: Task) -> np.ndarray:
        """The scores without the clamp: they are not yet on the scale of the labels."""
        return raw.astype(np.float64)

    def divergence(self, one: "Tensor", other: "Tensor") -> "Tensor":
        """1 - r of the two outputs, (): a difference could be lowered by shrinking all scores."""
        from mtbert.tasks.losses import pearson

        return pearson(one, other)


class Pearson(Correlated):
    """1 - r over the batch."""

    objective: Literal["pearson"]

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import pearson

        return pearson


class CoSent(Correlated):
    """CoSENT on the score. The default `scale` is lower than for cosines, since scores can differ by more than 2."""

    objective: Literal["cosent"]
    scale: Positive = 4.0

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosent

        return partial(cosent, scale=self.scale)


class CosineCoSent(CosineScore):
    """CoSENT on cos(u, v), as sentence-transformers' `CoSENTLoss`."""

    objective: Literal["cosine_cosent"]
    scale: Positive = 20.0

    mean_of_examples: ClassVar = False

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosent

        return partial(cosent, scale=self.scale)
