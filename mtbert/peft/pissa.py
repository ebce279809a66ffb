"""PiSSA: principal singular values and singular vectors adaptation (Meng et al. 2024). Shapes: O outputs, I inputs, r rank."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.lora import LoraLinear


class PissaLinear(LoraLinear):
    """W' = W_res + B A, y = W' x + bias.

    With W0 = U S V^T, B (O, r) and A (r, I) start from its first r singular triplets, as B0 = U S^1/2 and A0 = S^1/2 V^T. W_res = W0 - B0 A0
    is frozen, so that W' = W0 at the start. The forward computes W0 x + (B A - B0 A0) x: the base stays the pretrained encoder, whose
    checksum an adapter's file holds. A0 and B0 are frozen parameters of the adapter, since another machine's singular vectors differ in their last bits.

    Args:
        base: as for `AdaptedLinear`.
        rank: r.
    """

    added = (*LoraLinear.added, "principal_a", "principal_b")

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__(base, rank, alpha=rank)
        self.principal_a = nn.Parameter(torch.zeros_like(self.lora_a), requires_grad=False)
        self.principal_b = nn.Parameter(torch.zeros_like(self.lora_b), requires_grad=False)

    def initialise(self) -> None:
        """Set A and B, and A0 and B0, to the principal singular triplets of W0."""
        with torch.no_grad():
            u, s, vt = torch.linalg.svd(self.weight, full_matrices=False)
            rank = len(self.lora_a)
            root = s[:rank].sqrt()
            for a, b in ((self.lora_a, self.lora_b), (self.principal_a, self.principal_b)):
                a.copy_(root[:, None] * vt[:rank])
                b.copy_(u[:, :rank] * root)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        a, b = self.update()
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, a), b)

    def update(self) -> tuple[Tensor, Tensor]:
        """The update B A - B0 A0 as one of rank 2 r: [A; A0], (2 r, I), and [B, -B0], (O, 2 r)."""
        return torch.cat([self.lora_a, self.principal_a]), torch.cat([self.lora_b, -self.principal_b], dim=1)

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        a, b = self.update()
        return self.weight + b @ a
