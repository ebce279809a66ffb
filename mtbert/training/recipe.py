"""How a run is trained (section 4.3): the loop's settings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A run's schedule and rates.

    Attributes:
        sampler: sequential, round_robin, proportional, square_root, balanced, or an exponent of the datasets' sizes.
        epoch_end: depletion, or a number of steps.
        epochs, batch_size: numbers of epochs and of examples in a batch.
        learning_rate: constant over the run.
        adapter_learning_rate: of the adapter's own parameters; None means `learning_rate`.
        seed: decides the schedule and dropout.
    """

    sampler: str | float
    epoch_end: str | int
    epochs: int
    batch_size: int
    learning_rate: float
    adapter_learning_rate: float | None = None
    seed: int = 0
