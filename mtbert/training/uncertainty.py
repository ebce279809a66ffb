"""Weights of the tasks that are learned with the model (Kendall, Gal and Cipolla 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtbert.tasks.task import Task


class UncertaintyWeights(nn.Module):
    """Equation 10's weights: a task's loss L becomes L exp(-s) / 2 + s / 2 for scores, and L exp(-s) + s / 2 for classes and binary labels.

    s = log σ² is a parameter of the task, 0 at the start. The first form is a Gaussian's likelihood with L the squared error, the second
    approximately that of a softmax at temperature σ².

    Args:
        tasks: those that are trained, by name.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self._tasks = {name: (number, task.kind == "score") for number, (name, task) in enumerate(tasks.items())}
        # A parameter for each task, so that a step leaves those of the other tasks as they are.
        self.log_variances = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in tasks])

    def weighted(self, task: str, loss: Tensor) -> Tensor:
        """The task's weighted loss, ()."""
        number, score = self._tasks[task]
        s = self.log_variances[number]
        return loss * torch.exp(-s) / (2 if score else 1) + s / 2

    def learned(self) -> dict[str, float]:
        """s of each task."""
        return {task: self.log_variances[number].item() for task, (number, _) in self._tasks.items()}
