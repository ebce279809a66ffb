"""MTLoRA: a low-rank update that all tasks share, and one of each task (Agiza et al. 2024, section 3).

Shapes: O outputs, I inputs, r rank. `nn.Linear.weight` is (O, I).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout
from mtbert.peft.per_task import PerTask


class LowRank(nn.Module):
    """s B A, with A (r, I) and B (O, r). At the start B = 0."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)

    def update(self) -> Tensor:
        """s B A, (O, I)."""
        return self.scale * self.lora_b @ self.lora_a


class MtLoraLinear(nn.Module):
    """y = W' x + bias with W' = W0 + s B A + s_t B_t A_t, where t is the batch's task.

    W0 (O, I) is frozen. A (r, I) and B (O, r) are shared by all tasks and s = alpha / r; A_t (r_t, I) and B_t (O, r_t) are of
    task t and s_t = alpha / r_t. MTLoRA computes the outputs of all tasks for one input; here an input is of one task.

    Args:
        base: the linear layer to adapt; its weight and bias are shared, not copied.
        tasks: their names.
        rank, task_rank: r and r_t.
        alpha: numerator of s and s_t.
        dropout: on the input of the updates.
    """

    def __init__(
        self, base: nn.Linear, tasks: Iterable[str], rank: int, task_rank: int, alpha: float, dropout: Dropout
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.bias = base.bias
        self.shared = LowRank(base, rank, alpha / rank)
        self.tasks = PerTask({task: LowRank(base, task_rank, alpha / task_rank) for task in tasks})
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        dropped = self.dropout(x)
        update: Tensor = self.shared(dropped) + self.tasks.of_batch()(dropped)
        return F.linear(x, self.weight, self.bias) + update

    def merged_weight(self, task: str) -> Tensor:
        """W' of a task, (O, I)."""
        own: LowRank = self.tasks[task]  # type: ignore[assignment]
        return self.weight + self.shared.update() + own.update()


@torch.no_grad()
def merged_state(encoder: nn.Module, task: str) -> dict[str, Tensor]:
    """The encoder's state dict with each adapted layer as a plain one, merged for a task; without such layers, as it is."""
    state: dict[str, Tensor] = encoder.state_dict()
    for name, layer in encoder.named_modules():
        if isinstance(layer, MtLoraLinear):
            added = (f"{name}.shared.", f"{name}.tasks.")
            state = {key: tensor for key, tensor in state.items() if not key.startswith(added)}
            state[f"{name}.weight"] = layer.merged_weight(task)
    return state
