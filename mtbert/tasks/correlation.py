"""Objectives that train a score for its correlation with the labels: Pearson's r and CoSENT. Shapes: B examples.

A correlation leaves the score's scale open. On a linear head the mean squared error is therefore added, with a small weight, so that
predictions are on the labels' scale; a cosine has a scale of its own. These losses are of a batch, not means over its examples, so
several processes cannot share a batch.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from mtbert.section import Positive
from mtbert.tasks.objective import CosineScore, LinearScore
from mtbert.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Correlated(LinearScore):
    """A linear score, trained by a correlation plus `mse_weight` times the mean squared error."""

    mse_weight: Positive = 0.1

    mean_of_examples: ClassVar = False

    def _with_error(self, correlation: "Callable[[Tensor, Tensor], Tensor]") -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import mean_squared_error

        return lambda scores, labels: correlation(scores, labels) + self.mse_weight * mean_squared_error(scores, labels)


class Pearson(Correlated):
    """1 - r over the batch."""

    objective: Literal["pearson"]

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import pearson

        return self._with_error(pearson)


class CoSent(Correlated):
    """CoSENT on the score, mapped linearly from the task's range to a cosine's, -1..1, so that `scale` means the same."""

    objective: Literal["cosent"]
    scale: Positive = 20.0

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosent

        scale = 2 * self.scale / (task.high - task.low)  # of differences, which do not change with the middle
        return self._with_error(lambda scores, labels: cosent(scores, labels, scale))


class CosineCoSent(CosineScore):
    """CoSENT on cos(u, v), as sentence-transformers' `CoSENTLoss`."""

    objective: Literal["cosine_cosent"]
    scale: Positive = 20.0

    mean_of_examples: ClassVar = False

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosent

        return lambda cosines, labels: cosent(cosines, labels, self.scale)
