"""How a run is trained (section 4.3): the loop's settings."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from mtbert.section import Positive, Section
from mtbert.training.optimization import PAPER, Optimization


class TokenCount(Section):
    """The length of an epoch in tokens: a number, or `one_pass`, as many as the training sets have together."""

    tokens: Literal["one_pass"] | Annotated[int, Field(ge=1, le=1_000_000_000_000)]


class FurtherPretraining(Section):
    """A run's section `further_pretraining`: training on masked tokens of the tasks' training text, before training on the tasks.

    Attributes:
        steps, batch_size: numbers of steps and of sentences in a batch.
        learning_rate: of all parameters; constant.
    """

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    learning_rate: Positive


EpochEnd = str | int | TokenCount


@dataclass(frozen=True)
class Recipe:
    """A run's schedule and rates.

    Attributes:
        sampler: sequential, round_robin, proportional, square_root, balanced, annealed, joint, or an exponent of the datasets'
            sizes.
        epoch_end: depletion, one_pass, a number of steps, or a number of tokens.
        epochs, batch_size: numbers of epochs and of examples in a batch.
        learning_rate: of all parameters without a rate of their own.
        adapter_learning_rate: of the adapter's own parameters; None means `learning_rate`.
        seed: decides the schedule and dropout.
        optimization: how rates vary, and which weights are kept; by default as in the paper.
        passes: how many times a step lays a batch's examples into the stream, each time with dropout masks of its own.
        uncertainty_learning_rate: of the log-variances of `mtbert.training.uncertainty`.
        aggregation: how the tasks' gradients become one in a step of the joint sampler (mtbert/training/aggregation.py).
        measure_conflicts: the number of steps between two measurements of the tasks' gradients; None makes none.
    """

    sampler: str | float
    epoch_end: EpochEnd
    epochs: int
    batch_size: int
    learning_rate: float
    adapter_learning_rate: float | None = None
    seed: int = 0
    optimization: Optimization = PAPER
    passes: int = 1
    uncertainty_learning_rate: float = 0.0
    aggregation: str = "mean"
    measure_conflicts: int | None = None
