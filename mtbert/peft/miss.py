"""MiSS: matrix shard sharing (Kang and Yin 2024). Shapes: O outputs, I inputs, r rank."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.layer import AdaptedLinear


class MissLinear(AdaptedLinear):
    """W' = W0 + [D^T, D^T, ...], y = W' x + bias.

    W0 (O, I) is frozen. D (r, O) is one shard, repeated along the inputs; the last copy is cut if r does not divide I. So the update of y
    is the sum of x's pieces of r elements, times D. D starts as zero.

    Args:
        base: as for `AdaptedLinear`.
        rank: r.
    """

    added = ("shard",)

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__(base)
        self.shard = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        rank = len(self.shard)
        pieces = F.pad(x, (0, -x.shape[-1] % rank)).unflatten(-1, (-1, rank))
        return F.linear(x, self.weight, self.bias) + F.linear(pieces.sum(-2), self.shard.T)

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        inputs, rank = self.weight.shape[1], len(self.shard)
        return self.weight + self.shard.T.repeat(1, -(-inputs // rank))[:, :inputs]
