"""What a head is trained for, as one value: its head, loss, decision and metric, and the settings that it owns (sections 4.1 to 4.4).

A new objective is a class here and its name in `AnyObjective`, from which settings and registry read it. Shapes: B examples, C classes.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from mtbert.section import Section, one_of
from mtbert.tasks.features import FEATURES
from mtbert.tasks.task import Kind, Task

if TYPE_CHECKING:
    from torch import Tensor  # the losses are imported where they are used: reading the settings needs no torch

Feature = Annotated[str, one_of(FEATURES)]


class Predictions(NamedTuple):
    """One row per example, in the split's order.

    Attributes:
        values: the predicted label: a class by number, 0 or 1, or a score; (B,) float64.
        scores: of classes the probability of the predicted one, of a binary label that of 1, else the predicted score; (B,).
    """

    values: np.ndarray
    scores: np.ndarray


class Objective(Section):
    """Base of the objectives.

    Attributes:
        objective: its name, which tells one section from another.
        kinds: the kinds of label that it fits.
        head: `linear`, a layer over `inputs`; or `cosine`, cos(u, v) with nothing to learn.
        metric: the task's measure (section 5.2), by its name in `mtbert.evaluation.metrics`.
    """

    objective: str

    kinds: ClassVar[tuple[Kind, ...]]
    head: ClassVar[Literal["linear", "cosine"]]
    metric: ClassVar[Literal["accuracy", "pearson"]]

    @property
    @abstractmethod
    def inputs(self) -> Sequence[Feature]:
        """The features that the head looks at (section 4.2)."""

    @abstractmethod
    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        """The loss of (scores, labels)."""

    @abstractmethod
    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        """From the head's output, (B, C) or (B,), to predictions."""

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
    """A logit for each class; the likeliest class."""

    objective: Literal["cross_entropy"]

    kinds: ClassVar = ("classes",)
    metric: ClassVar = "accuracy"

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cross_entropy

        return cross_entropy

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        values = raw.argmax(1)
        return Predictions(values.astype(np.float64), self.probabilities(raw, task)[np.arange(len(raw)), values])

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        raw = raw.astype(np.float64)
        exp = np.exp(raw - raw.max(1, keepdims=True))
        return np.asarray(exp / exp.sum(1, keepdims=True))


class BinaryCrossEntropy(Linear):
    """The logit of label 1, which is predicted where it is positive."""

    objective: Literal["bce"]

    kinds: ClassVar = ("binary",)
    metric: ClassVar = "accuracy"

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        return _binary_cross_entropy()

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        return _by_sign(raw)

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        return _of_both(raw)


class Cosine(CosineOfPair):
    """The cosine as the logit of label 1 (section 4.1)."""

    objective: Literal["cosine"]

    kinds: ClassVar = ("binary",)
    metric: ClassVar = "accuracy"

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        return _binary_cross_entropy()

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        return _by_sign(raw)

    def probabilities(self, raw: np.ndarray, task: Task) -> np.ndarray:
        return _of_both(raw)


class MeanSquaredError(Linear):
    """The score itself; predictions are kept within the task's range if `clamp` (section 4.4)."""

    objective: Literal["mse"]
    clamp: bool

    kinds: ClassVar = ("score",)
    metric: ClassVar = "pearson"

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import mean_squared_error

        return mean_squared_error

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        values = raw.astype(np.float64)
        if self.clamp:
            values = values.clip(task.low, task.high)
        return Predictions(values, values)


class CosineEmbedding(CosineOfPair):
    """Equation 1 on (u, v); a label from `threshold` on maps to y = 1, one below to y = -1 (section 4.4).

    The prediction maps the cosine's -1 to 1 linearly to the task's range; Pearson's r is blind to that map.
    """

    objective: Literal["cosine_embedding"]
    margin: float = Field(ge=-1, le=1)
    threshold: float

    kinds: ClassVar = ("score",)
    metric: ClassVar = "pearson"

    def loss(self, task: Task) -> "Callable[[Tensor, Tensor], Tensor]":
        from mtbert.tasks.losses import cosine_embedding

        return partial(cosine_embedding, margin=self.margin, threshold=self.threshold)

    def decide(self, raw: np.ndarray, task: Task) -> Predictions:
        values = task.low + (task.high - task.low) / 2 * (1 + raw.astype(np.float64))
        values = values.clip(task.low, task.high)
        return Predictions(values, values)


AnyObjective = Annotated[
    CrossEntropy | BinaryCrossEntropy | MeanSquaredError | CosineEmbedding | Cosine, Field(discriminator="objective")
]
OBJECTIVES: dict[str, type[Objective]] = {
    get_args(kind.model_fields["objective"].annotation)[0]: kind for kind in get_args(get_args(AnyObjective)[0])
}


def _binary_cross_entropy() -> "Callable[[Tensor, Tensor], Tensor]":
    from mtbert.tasks.losses import binary_cross_entropy

    return binary_cross_entropy


def _by_sign(raw: np.ndarray) -> Predictions:
    raw = raw.astype(np.float64)
    return Predictions((raw > 0).astype(np.float64), np.exp(-np.logaddexp(0, -raw)))


def _of_both(raw: np.ndarray) -> np.ndarray:
    one = _by_sign(raw).scores
    return np.stack([1 - one, one], axis=1)
