"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank, T rows of input. `nn.Linear.weight` is (O, I), and the norm is taken per output
feature, i.e. over I.

A step costs the products of LoRA and two passes over (T, O) more: the forward's factor and, in the backward, the sum over T
that is the factor's gradient. Written as torch expressions it is five passes, so both functions bring their own backward.
"""

from typing import Any

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
        # ||w_i||^2 (O,) and W0 in bf16: W0 is frozen, so they are made once, and again only after other weights are loaded.
        self._base_squared: Tensor | None = None
        self._base_cast: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_base)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        factor_O = self.magnitude / self.norm()
        if self.training and self.dropout.p > 0:
            dropped, base = self.dropout(x), F.linear(x, self.weight)
            update = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
            y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * self.scale * update
            return (y if self.bias is None else y + self.bias).to(base.dtype)
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        with torch.autocast(device, enabled=False):
            return ScaledProduct.apply(
                x, self._weight_in(dtype), self.lora_a, self.lora_b, factor_O, self.bias, self.scale
            )

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,), without forming B A."""
        with torch.autocast(self.weight.device.type, enabled=False):
            lora_a, lora_b = (
                (self.lora_a, self.lora_b) if self.exact_norm else (self.lora_a.detach(), self.lora_b.detach())
            )
            return RowNorm.apply(self.weight, self._squared_rows(), lora_a, lora_b, self.scale)

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

    def _squared_rows(self) -> Tensor:
        kept = self._base_squared
        if kept is None or (kept.dtype, kept.device) != (self.weight.dtype, self.weight.device):
            with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
                kept = self._base_squared = self.weight.square().sum(1)
        return kept

    def _weight_in(self, dtype: torch.dtype) -> Tensor:
        """W0 for products in `dtype`: itself, or a copy that is made once, not at every step as autocast would."""
        if dtype == self.weight.dtype:
            return self.weight
        cast = self._base_cast
        if cast is None or (cast.dtype, cast.device) != (dtype, self.weight.device):
            with torch.inference_mode(False), torch.no_grad():
                cast = self._base_cast = self.weight.to(dtype)
        return cast


class ScaledProduct(torch.autograd.Function):
    """y = f (W0 x + s B A x) + bias, row by row of x; W0 is frozen.

    The products are in W0's type; the factor f (O,) = m / ||.|| and its gradient stay fp32, since in bf16 a magnitude could not
    move by less than 0.4%.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        lora_a: Tensor,
        lora_b: Tensor,
        factor: Tensor,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        """(..., I) to (..., O) in W0's type."""
        x_TI = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        a_rI, b_Or = lora_a.to(weight.dtype), (scale * lora_b).to(weight.dtype)
        h_Tr = x_TI @ a_rI.T
        z_TO = (x_TI @ weight.T).addmm_(h_Tr, b_Or.T)
        ctx.save_for_backward(x_TI, h_Tr, z_TO, weight, a_rI, b_Or, factor)
        ctx.shape, ctx.dtype, ctx.scale = x.shape, x.dtype, scale
        y_TO = z_TO * factor if bias is None else torch.addcmul(bias, z_TO, factor)
        return y_TO.to(weight.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, h_Tr, z_TO, weight, a_rI, b_Or, factor = ctx.saved_tensors
        g_TO = grad.reshape(z_TO.shape)
        grad_factor = (g_TO.to(factor.dtype) * z_TO).sum(0)
        grad_bias = g_TO.sum(0, dtype=factor.dtype) if ctx.needs_input_grad[5] else None
        g_TO = (g_TO * factor).to(weight.dtype)
        gh_Tr = g_TO @ b_Or
        grad_a = (gh_Tr.T @ x_TI).to(factor.dtype)
        grad_b = (g_TO.T @ h_Tr).to(factor.dtype).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (g_TO @ weight).addmm_(gh_Tr, a_rI).to(ctx.dtype).view(ctx.shape)
        return grad_x, None, grad_a, grad_b, grad_factor, grad_bias, None


class RowNorm(torch.autograd.Function):
    """||W0 + s B A|| of each row, by ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

    That costs O I r instead of O I (r + 1) products and no (O, I) copy.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, squared: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> Tensor:
        """(O,), at least `TINY`; `squared` is ||w_i||^2, (O,)."""
        bs_Or = scale * lora_b
        cross_Or = weight @ lora_a.T
        slope_Or = torch.addmm(cross_Or, bs_Or, lora_a @ lora_a.T)  # (W0 + s B A) A^T
        norm_O = (squared + (bs_Or * (cross_Or + slope_Or)).sum(1)).clamp_min(TINY**2).sqrt()
        ctx.save_for_backward(weight, lora_a, bs_Or, slope_Or, norm_O)
        ctx.scale = scale
        return norm_O

    @staticmethod
    def backward(ctx: Any, grad_O: Tensor) -> tuple[Tensor | None, ...]:
        weight, lora_a, bs_Or, slope_Or, norm_O = ctx.saved_tensors
        # Half the gradient of ||.||^2, which a clamped row does not pass on.
        half_O = torch.where(norm_O > TINY, grad_O / norm_O, 0.0)[:, None]
        e_Or = half_O * bs_Or
        grad_a = torch.addmm(e_Or.T @ weight, e_Or.T @ bs_Or, lora_a)
        return None, None, grad_a, (half_O * slope_Or).mul_(ctx.scale), None


def _forget_base(layer: nn.Module, _keys: object) -> None:
    layer._base_squared = layer._base_cast = None  # type: ignore[assignment]
