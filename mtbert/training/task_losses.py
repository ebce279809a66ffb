"""What a step minimises for each task: the objective's loss, with R-Drop's term and the task's weight if the run has them."""

from collections.abc import Mapping

from torch import Tensor

from mtbert.tasks.objective import Objective
from mtbert.training.step import Loss
from mtbert.training.uncertainty import UncertaintyWeights


def task_losses(
    objectives: Mapping[str, Objective],
    *,
    r_drop: float | None = None,
    weights: Mapping[str, float] | None = None,
    uncertainty: UncertaintyWeights | None = None,
) -> dict[str, Loss]:
    """The loss of each task, of (scores, labels).

    Args:
        objectives: by task.
        r_drop: α of `with_r_drop`; None for none.
        weights: factors of the tasks' losses; 1 for a task without one.
        uncertainty: learned weights.
    """
    return {
        task: _loss(objective, task, r_drop, (weights or {}).get(task, 1.0), uncertainty)
        for task, objective in objectives.items()
    }


def with_r_drop(objective: Objective, alpha: float) -> Loss:
    """R-Drop (Liang et al. 2021): the mean loss of two passes of a batch, plus α times their divergence, as in the authors' code. The
    paper's formula has the sum of the two losses, so its α is twice this one.

    The loss takes both passes' scores, one after the other, (2B, ...), and their labels, (2B,). The divergence is the objective's: the
    mean of KL(p || q) and KL(q || p) for labels, the mean squared difference for scores, 1 - r for scores without a scale.
    """
    loss = objective.loss()

    def of(scores: Tensor, labels: Tensor) -> Tensor:
        (one, other), (label, _) = scores.chunk(2), labels.chunk(2)
        return (loss(one, label) + loss(other, label)) / 2 + alpha * objective.divergence(one, other)

    return of


def _loss(
    objective: Objective, task: str, r_drop: float | None, weight: float, uncertainty: UncertaintyWeights | None
) -> Loss:
    loss = objective.loss() if r_drop is None else with_r_drop(objective, r_drop)
    if uncertainty is not None:
        return lambda scores, labels: uncertainty.weighted(task, loss(scores, labels))
    if weight != 1:
        return lambda scores, labels: weight * loss(scores, labels)
    return loss
