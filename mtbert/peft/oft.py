"""OFT: orthogonal finetuning with the Cayley-Neumann parametrisation (Qiu et al. 2023; Qiu et al. 2025, OFTv2).

Shapes: O outputs, I inputs, N = I / b blocks of size b.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.layer import AdaptedLinear


class OftLinear(AdaptedLinear):
    """W' = W0 R^T, y = W' x + bias.

    W0 (O, I) is frozen. R is block-diagonal; each block (b, b) is (I + Q) (I - Q)^-1, orthogonal for a skew-symmetric Q, with the inverse
    by the first terms of its Neumann series: R = I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4, as in peft. The entries of Q above its diagonal are
    trained. They start as zero, so that R = I.

    Args:
        base: as for `AdaptedLinear`.
        block_size: b, a divisor of I.
    """

    added = ("skew",)

    def __init__(self, base: nn.Linear, block_size: int) -> None:
        super().__init__(base)
        self.skew = nn.Parameter(torch.zeros(base.in_features // block_size, block_size * (block_size - 1) // 2))
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return F.linear(self.rotated(x), self.weight, self.bias)

    def rotated(self, x: Tensor) -> Tensor:
        """R^T x for each row of x, (..., I)."""
        r_Nbb = self.rotation()
        with torch.autocast(x.device.type, enabled=False):  # bf16 would round small rotations away
            blocks = x.to(r_Nbb.dtype).unflatten(-1, (-1, self.block_size))
            return torch.einsum("...nk,nkc->...nc", blocks, r_Nbb).flatten(-2)

    def rotation(self) -> Tensor:
        """The blocks of R, (N, b, b)."""
        size, skew = self.block_size, self.skew
        with torch.autocast(skew.device.type, enabled=False):
            row, column = torch.triu_indices(size, size, 1, device=skew.device)
            upper = skew.new_zeros(len(skew), size, size).index_put(
                (torch.arange(len(skew), device=skew.device)[:, None], row, column), skew
            )
            q = upper - upper.mT
            squared = q @ q
            return torch.eye(size, device=q.device, dtype=q.dtype) + 2 * (q + squared + squared @ q) + squared @ squared

    def merged_weight(self) -> Tensor:
        """W' = W0 R^T, (O, I), since W0 (R^T x) = (W0 R^T) x."""
        r_Nbb = self.rotation()
        blocks = self.weight.unflatten(-1, (-1, self.block_size))
        return torch.einsum("onc,nkc->onk", blocks, r_Nbb).flatten(-2)
