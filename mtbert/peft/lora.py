"""LoRA: low-rank adaptation (Hu et al. 2021). Shapes: O outputs, I inputs, r rank. `nn.Linear.weight` is (O, I)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout, Noise
from mtbert.peft.layer import AdaptedLinear


class LoraLinear(AdaptedLinear):
    """W' = W0 + s B A, y = W' x + bias.

    W0 (O, I) is frozen. A (r, I) and B (O, r) are the low-rank update, s = alpha / r. At the start B = 0, so that W' =
    W0.

    Args:
        base: as for `AdaptedLinear`.
        rank: r.
        alpha: numerator of s.
        dropout: on the input of the update.
    """

    added: tuple[str, ...] = ("lora_a", "lora_b")

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: Dropout | None = None) -> None:
        super().__init__(base)
        outputs, inputs = base.weight.shape
        self.lora_a = nn.Parameter(torch.empty(rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        self.scale = alpha / rank
        self.dropout = dropout or Dropout(0.0, Noise())

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        update = F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)
        return F.linear(x, self.weight, self.bias) + self.scale * update

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        return self.weight + self.scale * self.lora_b @ self.lora_a
