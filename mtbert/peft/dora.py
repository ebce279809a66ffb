"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank. `nn.Linear.weight` is (O, I), and the norm is taken per output feature, i.e. over I.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout, Noise

# Below this a row of W0 + s B A counts as zero; its direction is then taken as zero too, never NaN.
TINY = 1e-12


class DoraLinear(nn.Module):
    """W' = m (W0 + s B A) / ||W0 + s B A||, y = W' x + bias.

    W0 (O, I) is frozen. m (O,) is the magnitude, A (r, I) and B (O, r) the low-rank direction update, s = alpha / r.
    At the start B = 0 and m = ||W0||, so that W' = W0.

    Args:
        base: the linear layer to adapt; its weight and bias tensors are taken over, not copied.
        rank: r.
        alpha: numerator of s.
        dropout: on the input of the update; the base term then keeps its factor (m / ||.|| - 1), as in the authors' code.
        exact_norm: let the gradient pass through the norm; otherwise the norm counts as a constant (their section 4.3).
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dropout: Dropout | None = None, exact_norm: bool = True
    ) -> None:
        super().__init__()
        outputs, inputs = base.weight.shape
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.bias = base.bias
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))
        self.lora_a = nn.Parameter(torch.empty(rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        self.scale = alpha / rank
        self.dropout = dropout or Dropout(0.0, Noise())
        self.exact_norm = exact_norm
        # ||w_i||^2 (O,): W0 is frozen, so it is computed once, and again only after other weights are loaded.
        self._base_squared: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_base_squared)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        factor_O = self.magnitude / self.norm()
        base = F.linear(x, self.weight)
        if self.training and self.dropout.p > 0:
            dropped = self.dropout(x)
            update = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
            y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * self.scale * update
            return (y if self.bias is None else y + self.bias).to(base.dtype)
        update = F.linear(F.linear(x, self.lora_a), self.lora_b)
        y = torch.add(base, update, alpha=self.scale)
        # The factor stays fp32: in bf16 a magnitude could not move by less than 0.4%.
        return (y * factor_O if self.bias is None else torch.addcmul(self.bias, y, factor_O)).to(base.dtype)

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,), without forming B A.

        ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T costs O I r instead of O I (r + 1) products and no (O, I) copy.
        """
        with torch.autocast(self.weight.device.type, enabled=False), torch.set_grad_enabled(self._grad()):
            cross_Or = F.linear(self.weight, self.lora_a)
            gram_rr = self.lora_a @ self.lora_a.T
            bs_Or = self.scale * self.lora_b
            squared_O = self._squared_rows() + (bs_Or * (2 * cross_Or + bs_Or @ gram_rr)).sum(1)
            return squared_O.clamp_min(TINY**2).sqrt()

    def merged(self) -> nn.Linear:
        """A plain linear layer that computes the same as this one."""
        outputs, inputs = self.weight.shape
        with torch.no_grad():
            linear = nn.Linear(inputs, outputs, bias=self.bias is not None, device=self.weight.device)
            adapted = self.weight + self.scale * self.lora_b @ self.lora_a
            linear.weight.copy_((self.magnitude / self.norm())[:, None] * adapted)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def _grad(self) -> bool:
        return self.exact_norm and torch.is_grad_enabled()

    def _squared_rows(self) -> Tensor:
        if self._base_squared is None or self._base_squared.device != self.weight.device:
            with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
                self._base_squared = self.weight.square().sum(1)
        return self._base_squared


def _forget_base_squared(layer: nn.Module, _keys: object) -> None:
    layer._base_squared = None  # type: ignore[assignment]
