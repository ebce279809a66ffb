"""CORN, an objective for ordered classes (Shi, Cao and Raschka 2021, arXiv:2111.08851). Shapes: B examples, C classes."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mtbert.tasks.objective import Linear, Predictions
from mtbert.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Corn(Linear):
    """A logit for each class but the last: logit k is that of P(y > k | y >= k).

    P(y > k) is the product of these probabilities up to k, so it never rises with k, whatever the weights are. (CORAL, Cao et al. 2020,
    has this property only at the optimum of its loss, and one weight vector for all ranks.) As for `cross_entropy`, the prediction is the
    most likely class, since the metric is accuracy; the paper takes the median, which errs less far.
    """

    objective: Literal["corn"]

    kinds: ClassVar = ("classes",)
    metric: ClassVar = "accuracy"

    def outputs(self, task: Task) -> int:
        return task.outputs - 1

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import conditional_ordinal

        return conditional_ordinal

    def divergence(self, one: "Tensor", other: "Tensor") -> "Tensor":
        """The symmetric divergence of the classes' probabilities, ()."""
        from mtbert.tasks.losses import log_probabilities_of_ranks, symmetric_kl

        return symmetric_kl(log_probabilities_of_ranks(one), log_probabilities_of_ranks(other))

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        shares = self.probabilities(raw, task)
        return Predictions(shares.argmax(1).astype(np.float64), shares.max(1))

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        raw = raw.astype(np.float64).reshape(len(raw), -1)  # of two classes the head gives (B,)
        higher, end = -np.logaddexp(0, -raw), np.zeros((len(raw), 1))
        reached = np.concatenate([end, higher.cumsum(1)], axis=1)
        return np.asarray(np.exp(reached + np.concatenate([-np.logaddexp(0, raw), end], axis=1)))
