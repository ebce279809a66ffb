"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank. `nn.Linear.weight` is (O, I), and the norm is taken per output feature, i.e. over I.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout
from mtbert.peft.lora import LoraLinear

# Below this a row of W0 + s B A counts as zero; its direction is then taken as zero too, never NaN.
TINY = 1e-12


class DoraLinear(LoraLinear):
    """W' = m (W0 + s B A) / ||W0 + s B A||, y = W' x + bias.

    W0 (O, I) is frozen. m (O,) is the magnitude, A (r, I) and B (O, r) the low-rank direction update, s = alpha / r.
    At the start B = 0 and m = ||W0||, so that W' = W0.

    Args:
        base, rank, alpha: as for `LoraLinear`.
        dropout: on the input of the update; the base term then keeps its factor (m / ||.|| - 1), as in the authors' code.
        exact_norm: let the gradient pass through the norm; otherwise the norm counts as a constant (their section 4.3).
    """

    added = (*LoraLinear.added, "magnitude")

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dropout: Dropout | None = None, exact_norm: bool = True
    ) -> None:
        super().__init__(base, rank, alpha, dropout)
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))
        self.exact_norm = exact_norm

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        factor_O = self.magnitude / self.norm()  # stays fp32: in bf16 a magnitude could not move by less than 0.4%
        dropped, base = self.dropout(x), F.linear(x, self.weight)
        update = self.scale * F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        if dropped is x:  # no dropout: both terms have the same factor
            y = factor_O * (base + update)
        else:
            y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * update
        return (y if self.bias is None else y + self.bias).to(base.dtype)

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,): the root of ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

        That is O I r products instead of O I (r + 1), and no (O, I) copy, since B A is never formed.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            a: Tensor = self.lora_a
            sb = self.scale * self.lora_b
            if not self.exact_norm:
                a, sb = a.detach(), sb.detach()
            squared = self.weight.square().sum(1) + (sb * (2 * self.weight @ a.T + sb @ (a @ a.T))).sum(1)
            return squared.clamp_min(TINY**2).sqrt()

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        return (self.magnitude / self.norm())[:, None] * super().merged_weight()
