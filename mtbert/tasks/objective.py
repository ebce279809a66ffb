"""The paper's objectives of heads (sections 4.1 to 4.4). Each is one class: kind of head, loss, decision, metric and settings.

The others are in files beside this one; registry.py lists all of them. Shapes: B examples, C classes.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from mtbert.section import Probability, Section, one_of
from mtbert.tasks.features import FEATURES
from mtbert.tasks.task import Kind, Task

if TYPE_CHECKING:  # losses are imported where they are used, so that reading the settings does not import torch
    from torch import Tensor

Feature = Annotated[str, one_of(FEATURES)]


class Predictions(NamedTuple):
    """One row per example, in the split's order.

    Attributes:
        values: predicted labels, (B,) float64: the number of a class, 0 or 1, or a score.
        scores: (B,): the probability of the predicted class, the probability of label 1, or the score before it is clamped.
    """

    values: np.ndarray
    scores: np.ndarray


class Objective(Section):
    """Base of the objectives.

    Attributes:
        objective: its name in params.yaml.
        kinds: the kinds of label that it can be used with.
        head: `linear`, a layer over `inputs`, or `cosine`, cos(u, v), which has no parameters.
        metric: the task's metric (section 5.2), a key of `mtbert.evaluation.metrics.METRICS`.
        mean_of_examples: whether the loss is a mean over the examples, so that several processes can share a batch.
    """

    objective: str

    kinds: ClassVar[tuple[Kind, ...]]
    head: ClassVar[Literal["linear", "cosine"]]
    metric: ClassVar[Literal["accuracy", "pearson"]]
    mean_of_examples: ClassVar[bool] = True

    @property
    @abstractmethod
    def inputs(self) -> Sequence[Feature]:
        """The features that the head takes (section 4.2)."""

    def outputs(self, task: Task) -> int:
        """Number of outputs of a linear head per example."""
        return task.outputs

    @abstractmethod
    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        """The loss of (scores, labels)."""

    def divergence(self, one: "Tensor", other: "Tensor") -> "Tensor":
        """How far two outputs of the head for the same examples are apart, (): their mean squared difference."""
        from mtbert.tasks.losses import mean_squared_error

        return mean_squared_error(one, other)

    @abstractmethod
    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        """Predictions from the head's output, (B, C) or (B,)."""

    def values_while_training(self, raw: np.ndarray, task: Task) -> np.ndarray:
        """What the metric is computed from before training has ended, (B,) float64."""
        return self.decide(raw, task).values

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        """The probability of each label, (B, C) float64; of a score there is none, (B, 0)."""
        return np.empty((len(raw), 0))


class Linear(Objective):
    """A linear layer over the concatenated features (section 4.2)."""

    features: list[Feature] = Field(min_length=1)

    head: ClassVar = "linear"

    @property
    def inputs(self) -> Sequence[Feature]:
        return self.features


class CosineOfPair(Objective):
    """cos(u, v) (section 4.1)."""

    head: ClassVar = "cosine"

    @property
    def inputs(self) -> Sequence[Feature]:
        return ("u", "v")


class CrossEntropy(Linear):
    """A logit for each class; predicts the most likely one. `label_smoothing` is the ε of `losses.cross_entropy`."""

    objective: Literal["cross_entropy"]
    label_smoothing: Probability = 0.0

    kinds: ClassVar = ("classes",)
    metric: ClassVar = "accuracy"

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cross_entropy

        return partial(cross_entropy, label_smoothing=self.label_smoothing)

    def divergence(self, one: "Tensor", other: "Tensor") -> "Tensor":
        """The symmetric divergence of the classes' probabilities, ()."""
        from mtbert.tasks.losses import symmetric_kl

        return symmetric_kl(one.log_softmax(-1), other.log_softmax(-1))

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        values = raw.argmax(1)
        return Predictions(values.astype(np.float64), self.probabilities(raw, task)[np.arange(len(raw)), values])

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        raw = raw.astype(np.float64)
        exp = np.exp(raw - raw.max(1, keepdims=True))
        return np.asarray(exp / exp.sum(1, keepdims=True))


class LogitOfOne(Objective):
    """A logit of label 1, trained by binary cross-entropy; predicts 1 if it is positive."""

    kinds: ClassVar = ("binary",)
    metric: ClassVar = "accuracy"

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import binary_cross_entropy

        return binary_cross_entropy

    def divergence(self, one: "Tensor", other: "Tensor") -> "Tensor":
        """The symmetric divergence of the two labels' probabilities, ()."""
        from mtbert.tasks.losses import log_probabilities_of_logit, symmetric_kl

        return symmetric_kl(log_probabilities_of_logit(one), log_probabilities_of_logit(other))

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        raw = raw.astype(np.float64)
        return Predictions((raw > 0).astype(np.float64), np.exp(-np.logaddexp(0, -raw)))

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        one = self.decide(raw, task).scores
        return np.stack([1 - one, one], axis=1)


class BinaryCrossEntropy(LogitOfOne, Linear):
    """A linear layer gives the logit (section 4.2). `label_smoothing` is the ε of `losses.binary_cross_entropy`."""

    objective: Literal["bce"]
    label_smoothing: Probability = 0.0

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import binary_cross_entropy

        return partial(binary_cross_entropy, label_smoothing=self.label_smoothing)


class Cosine(LogitOfOne, CosineOfPair):
    """cos(u, v) is the logit (section 4.1)."""

    objective: Literal["cosine"]


class LinearScore(Linear):
    """A linear layer gives the score; `clamp` limits predictions to the task's range (section 4.4)."""

    clamp: bool

    kinds: ClassVar = ("score",)
    metric: ClassVar = "pearson"

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        scores = raw.astype(np.float64)
        return Predictions(scores.clip(task.low, task.high) if self.clamp else scores, scores)


class MeanSquaredError(LinearScore):
    """Mean squared error of the score (section 4.4)."""

    objective: Literal["mse"]

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import mean_squared_error

        return mean_squared_error


class CosineScore(CosineOfPair):
    """The prediction maps cos(u, v) linearly from -1..1 to the task's range, which does not change Pearson's r."""

    kinds: ClassVar = ("score",)
    metric: ClassVar = "pearson"

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        values = task.low + (task.high - task.low) / 2 * (1 + raw.astype(np.float64))
        return Predictions(values.clip(task.low, task.high), values)


class CosineEmbedding(CosineScore):
    """Equation 1 on (u, v): y = 1 for labels of at least `threshold`, -1 for lower ones (section 4.4)."""

    objective: Literal["cosine_embedding"]
    margin: float = Field(ge=-1, le=1)
    threshold: float

    def loss(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosine_embedding

        return partial(cosine_embedding, margin=self.margin, threshold=self.threshold)
