"""The gradients of a step that holds a batch of every task. Shapes: N tasks, P numbers in the parameters that they share."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.model.multitask import MultitaskModel
from mtbert.peft.per_task import PerTask


def shared_parameters(model: MultitaskModel) -> dict[str, nn.Parameter]:
    """The encoder's trained parameters that all tasks share, by name; not the parts that an adapter has for each task."""
    apart = {one for module in model.modules() if isinstance(module, PerTask) for one in module.parameters()}
    named = model.encoder.named_parameters(prefix="encoder")
    return {name: one for name, one in named if one.requires_grad and one not in apart}


class TaskGradients:
    """The gradients of N tasks' losses; call `take` after the backward of each.

    One object serves all steps: memory that is new in each step would first be cleared by the operating system.

    Attributes:
        rows_NP: a task's gradient in each row, of `shared_parameters` in their order; as large as N copies of them.
    """

    def __init__(self, model: MultitaskModel, tasks: int) -> None:
        shared = shared_parameters(model)
        self._shared = list(shared.values())
        self._others = [one for name, one in model.named_parameters() if one.requires_grad and name not in shared]
        self._sizes = [parameter.numel() for parameter in self._shared]
        like = next(model.parameters())
        self.rows_NP = torch.empty(tasks, sum(self._sizes), dtype=like.dtype, device=like.device)
        self._sum_P = torch.empty_like(self.rows_NP[0])
        self._sums: dict[nn.Parameter, Tensor] = {}

    def take(self, row: int) -> None:
        """Move the parameters' gradients here, as those of task number `row`; the parameters then have none. Row 0 comes first."""
        for parameter, part in zip(self._shared, self.rows_NP[row].split(self._sizes), strict=True):
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(parameter.grad.flatten())
            parameter.grad = None
        if row == 0:
            self._sums.clear()
        for parameter in self._others:
            if parameter.grad is not None:
                self._sums[parameter] = parameter.grad + self._sums.get(parameter, 0)
                parameter.grad = None

    def columns(self) -> tuple[Tensor, ...]:
        """Each parameter's part of the rows, (N, numel)."""
        return self.rows_NP.split(self._sizes, dim=1)

    def gramian(self) -> Tensor:
        """The inner products of the rows, (N, N) fp64 in host memory."""
        return (self.rows_NP @ self.rows_NP.T).double().cpu()

    def give(self, weights_N: Tensor) -> None:
        """Set the gradients: of the shared parameters the weighted sum of the tasks', of all others the tasks' mean."""
        torch.mv(self.rows_NP.T, weights_N.to(self.rows_NP), out=self._sum_P)
        for parameter, part in zip(self._shared, self._sum_P.split(self._sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        for parameter, gradient in self._sums.items():
            parameter.grad = gradient / len(weights_N)


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Make torch's random numbers on the CPU a function of (seed, step) in the block, and unchanged after it."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds CUDA's generators too.
        torch.default_generator.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        yield
