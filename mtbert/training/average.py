"""An exponential moving average of the trained weights. It is part of the optimizer's state, so checkpoints hold it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

KEY = "average"


class Average:
    """The average of the weights that `optimizer` has updated.

    Args:
        decay: d in average = d · average + (1 - d) · weight, at most t / (9 + t) in step t, so that the initial weights are
            forgotten at the start; None makes no average, and nothing here has an effect.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float | None) -> None:
        self._optimizer, self._decay = optimizer, decay

    def update(self, step: int) -> None:
        """Add the weights after training step `step`, counted from 1."""
        state = self._optimizer.state
        if self._decay is None or not state:  # no step has updated the weights yet if no loss was finite
            return
        for weight, kept in state.items():
            if KEY not in kept:
                kept[KEY] = weight.detach().clone(memory_format=torch.preserve_format)
        decay = min(self._decay, step / (step + 9))
        with torch.no_grad():
            torch._foreach_lerp_([kept[KEY] for kept in state.values()], list(state), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the weights are their averages."""
        weights = self._averaged()
        before = [weight.detach().clone() for weight in weights]
        try:
            self.apply()
            yield
        finally:
            _set(weights, before)

    def apply(self) -> None:
        """Replace the weights by their averages."""
        weights = self._averaged()
        _set(weights, [self._optimizer.state[weight][KEY] for weight in weights])

    def _averaged(self) -> list[Tensor]:
        return [weight for weight, kept in self._optimizer.state.items() if KEY in kept]


@torch.no_grad()
def _set(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
