"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank, T rows of input. `nn.Linear.weight` is (O, I), and the norm is taken per output
feature, i.e. over I.

A step costs the products of LoRA and two passes over (T, O) more: the forward's factor and, in the backward, the sum over T
that is the factor's gradient. Written as torch expressions it is five passes, so both functions bring their own backward.
In bf16 the low-rank products ride along with the base product, as r more columns of input and weight.
"""

from collections.abc import Sequence
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
        # Made once, since W0 is frozen, and again only after other weights are loaded: ||w_i||^2 (O,), and `_wide`'s W0.
        self._base_squared: Tensor | None = None
        self._base_wide: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_base)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        if self.training and self.dropout.p > 0:
            factor_O = self.magnitude / self.norm()
            dropped, base = self.dropout(x), F.linear(x, self.weight)
            update = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
            y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * self.scale * update
            return (y if self.bias is None else y + self.bias).to(base.dtype)
        return _product([self], x)

    @staticmethod
    def side_by_side(layers: Sequence["DoraLinear"], x: Tensor) -> Tensor:
        """The outputs of several layers next to each other; in bf16 without dropout as one product."""
        first = layers[0]
        if (first.training and first.dropout.p > 0) or _product_dtype(x, first.weight) == first.weight.dtype:
            return torch.cat([layer(x) for layer in layers], dim=-1)
        return _product(layers, x)

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,), without forming B A."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return _norm([self], self.weight, self.lora_a, self.scale * self.lora_b)

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


def _product(layers: Sequence[DoraLinear], x: Tensor) -> Tensor:
    """The layers' outputs side by side, in the type that autocast asks for."""
    dtype = _product_dtype(x, layers[0].weight)
    with torch.autocast(x.device.type, enabled=False):
        # With B's blocks on a diagonal, several layers are one: a row of B sees its own layer's A only.
        lora_a = torch.cat([layer.lora_a for layer in layers])
        lora_b = torch.block_diag(*[layer.scale * layer.lora_b for layer in layers])
        base = layers[0].weight if dtype == layers[0].weight.dtype else _wide(layers, lora_b, dtype)
        # The products that stand beside ||W0||^2 may be as rounded as those of the layer.
        norm_O = _norm(layers, base[:, : lora_a.shape[1]], lora_a, lora_b)
        factor_O = torch.cat([layer.magnitude for layer in layers]) / norm_O
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return ScaledProduct.apply(x, base, lora_a, lora_b, factor_O, bias)


def _norm(layers: Sequence[DoraLinear], weight: Tensor, lora_a: Tensor, lora_b: Tensor) -> Tensor:
    if not layers[0].exact_norm:
        lora_a, lora_b = lora_a.detach(), lora_b.detach()
    return RowNorm.apply(weight, torch.cat([layer._squared_rows() for layer in layers]), lora_a, lora_b)


def _wide(layers: Sequence[DoraLinear], lora_b: Tensor, dtype: torch.dtype) -> Tensor:
    """[W0 | s B] of the layers in `dtype`, (O, I + r): W0 is cast once, s B is written at every call."""
    first = layers[0]
    wide, shape = first._base_wide, (lora_b.shape[0], first.weight.shape[1] + lora_b.shape[1])
    if wide is None or (wide.shape, wide.dtype, wide.device) != (shape, dtype, lora_b.device):
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
            wide = first._base_wide = torch.empty(shape, dtype=dtype, device=lora_b.device)
            wide[:, : first.weight.shape[1]] = torch.cat([layer.weight for layer in layers])
    # Past autograd's count of versions: a graph that still needs s B keeps the tensor `lora_b` itself.
    wide.data[:, first.weight.shape[1] :] = lora_b.detach()
    return wide


def _product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class ScaledProduct(torch.autograd.Function):
    """y = f (W0 x + s B A x) + bias, row by row of x; W0 is frozen.

    The products are in W0's type; the factor f (O,) = m / ||.|| and its gradient stay fp32, since in bf16 a magnitude could not
    move by less than 0.4%.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: Tensor, lora_a: Tensor, lora_b: Tensor, factor: Tensor, bias: Tensor | None
    ) -> Tensor:
        """(..., I) to (..., O) in W0's type.

        Args:
            base: W0 (O, I), or [W0 | s B] (O, I + r), which makes one product of two.
            lora_a, lora_b: A (r, I) and s B (O, r).
        """
        rows, inputs, rank = x.reshape(-1, x.shape[-1]), lora_a.shape[1], len(lora_a)
        xh = torch.empty(len(rows), inputs + rank, dtype=base.dtype, device=x.device)
        x_TI, h_Tr = xh.split((inputs, rank), dim=1)
        a_rI = lora_a.to(base.dtype)
        x_TI.copy_(rows)
        h_Tr.copy_(x_TI @ a_rI.T)
        z_TO = xh @ base.T if base.shape[1] > inputs else (x_TI @ base.T).addmm_(h_Tr, lora_b.T)
        ctx.save_for_backward(xh, z_TO, base, a_rI, lora_b, factor)
        ctx.shape, ctx.dtype = x.shape, x.dtype
        y_TO = torch.empty_like(z_TO)
        for y, z in zip(_chunks(y_TO), _chunks(z_TO), strict=True):
            scaled = z.to(factor.dtype) * factor
            y.copy_(scaled if bias is None else scaled.add_(bias))
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        xh, z_TO, base, a_rI, lora_b, factor = ctx.saved_tensors
        rank, inputs = a_rI.shape
        x_TI, h_Tr = xh.split((inputs, rank), dim=1)
        grad_TO, g_TO = grad.reshape(z_TO.shape), torch.empty_like(z_TO)
        grad_factor, grad_bias = torch.zeros_like(factor), torch.zeros_like(factor)
        for grad_, g, z in zip(_chunks(grad_TO), _chunks(g_TO), _chunks(z_TO), strict=True):
            exact = grad_.to(factor.dtype)
            grad_factor += (z * exact).sum(0)
            if ctx.needs_input_grad[5]:
                grad_bias += exact.sum(0)
            g.copy_(exact * factor)
        if base.shape[1] > inputs:
            gx_TI, gh_Tr = (g_TO @ base).split((inputs, rank), dim=1)
        else:
            gh_Tr = g_TO @ lora_b
            gx_TI = g_TO @ base if ctx.needs_input_grad[0] else None
        grad_a = (gh_Tr.T @ x_TI).to(factor.dtype)
        grad_b = (g_TO.T @ h_Tr).to(factor.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.addmm(gx_TI, gh_Tr, a_rI).to(ctx.dtype).view(ctx.shape)
        return grad_x, None, grad_a, grad_b, grad_factor, (grad_bias if ctx.needs_input_grad[5] else None)


def _chunks(x_TO: Tensor) -> tuple[Tensor, ...]:
    """Rows by a few dozen on a CPU: passes over fp32 copies then stay in its cache, which is most of what they cost."""
    return x_TO.split(max(1, 2**17 // x_TO.shape[1])) if x_TO.device.type == "cpu" else (x_TO,)


class RowNorm(torch.autograd.Function):
    """||W0 + s B A|| of each row, by ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

    That costs O I r instead of O I (r + 1) products and no (O, I) copy.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, squared: Tensor, lora_a: Tensor, lora_b: Tensor) -> Tensor:
        """(O,), at least `TINY`.

        Args:
            weight: W0 (O, I), may be rounded; squared: ||w_i||^2 (O,), is not.
            lora_a, lora_b: A (r, I) and s B (O, r).
        """
        cross_Or = (weight @ lora_a.T.to(weight.dtype)).to(lora_a.dtype)
        slope_Or = torch.addmm(cross_Or, lora_b, lora_a @ lora_a.T)  # (W0 + s B A) A^T
        norm_O = (squared + (lora_b * (cross_Or + slope_Or)).sum(1)).clamp_min(TINY**2).sqrt()
        ctx.save_for_backward(weight, lora_a, lora_b, slope_Or, norm_O)
        return norm_O

    @staticmethod
    def backward(ctx: Any, grad_O: Tensor) -> tuple[Tensor | None, ...]:
        weight, lora_a, lora_b, slope_Or, norm_O = ctx.saved_tensors
        # Half the gradient of ||.||^2, which a clamped row does not pass on.
        half_O = torch.where(norm_O > TINY, grad_O / norm_O, 0.0)[:, None]
        e_Or = half_O * lora_b
        through_base = (e_Or.T.to(weight.dtype) @ weight).to(lora_a.dtype)
        return None, None, torch.addmm(through_base, e_Or.T @ lora_b, lora_a), half_O * slope_Or


def _forget_base(layer: nn.Module, _keys: object) -> None:
    layer._base_squared = layer._base_wide = None  # type: ignore[assignment]
