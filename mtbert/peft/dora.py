"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank. `nn.Linear.weight` is (O, I), so ||.|| is the norm of each row: one per output
feature, over I.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout
from mtbert.peft.lora import LoraLinear

# Lower bound of ||W0 + s B A||: the direction of a zero row is zero, not NaN.
TINY = 1e-12


class DoraLinear(LoraLinear):
    """W' = m (W0 + s B A) / ||W0 + s B A||, y = W' x + bias.

    W0 (O, I) is frozen. m (O,) is the magnitude, A (r, I) and B (O, r) the low-rank direction update, s = alpha / r.
    At the start B = 0 and m = ||W0||, so that W' = W0.

    Args:
        base, rank, alpha: as for `LoraLinear`.
        dropout: on the input of the update. As in the authors' code, W0 then sees the plain input once and the dropped
            input with factor m / ||.|| - 1.
        exact_norm: differentiate the norm; otherwise it is a constant in the backward pass (section 4.3 of Liu et al.).
    """

    added = (*LoraLinear.added, "magnitude")

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dropout: Dropout | None = None, exact_norm: bool = True
    ) -> None:
        super().__init__(base, rank, alpha, dropout)
        weight = base.weight.detach()
        # On the meta device, where models are counted, torch's norm would import its compiler, which takes a second.
        self.magnitude = nn.Parameter(weight.new_empty(len(weight)) if weight.is_meta else weight.norm(dim=1))
        self.exact_norm = exact_norm

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        factor_O = self.magnitude / self.norm()  # fp32: in bf16 a change of m below 0.4% would be lost
        dropped, base = self.dropout(x), F.linear(x, self.weight)
        update = self.scale * F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        if dropped is x:  # without dropout, both terms have the same factor
            y = factor_O * (base + update)
        else:
            y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * update
        return (y if self.bias is None else y + self.bias).to(base.dtype)

    def norm(self) -> Tensor:
        """||W0 + s B A|| for each output i, (O,): the square root of ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

        w_i and b_i are the rows of W0 and B. B A is never formed, which saves an (O, I) matrix.
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
