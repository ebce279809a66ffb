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
from mtbert.model.fused import Product, finished

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
        return finished(self.side_by_side([self], x.reshape(-1, x.shape[-1]))).view(*x.shape[:-1], -1)

    @staticmethod
    def side_by_side(layers: Sequence["DoraLinear"], x: Tensor) -> Product:
        """What several layers make of x, (T, I), next to each other; without dropout as one product."""
        first = layers[0]
        if first.training and first.dropout.p > 0:
            return Product(torch.cat([layer._dropped(x) for layer in layers], dim=-1))
        bias = None if first.bias is None else torch.cat([layer.bias for layer in layers])
        dtype = product_dtype(x, first.weight)
        with torch.autocast(x.device.type, enabled=False):
            magnitude, squared = (torch.cat(parts) for parts in zip(*map(DoraLinear._rows, layers), strict=True))
            z, factor = DoraProduct.apply(x, *stacked(layers, dtype), magnitude, squared, first.exact_norm)
        return Product(z, factor, bias)

    def _rows(self) -> tuple[Tensor, Tensor]:
        return self.magnitude, self._squared_rows()

    def _dropped(self, x: Tensor) -> Tensor:
        factor_O = self.magnitude / self.norm()
        dropped, base = self.dropout(x), F.linear(x, self.weight)
        update = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * self.scale * update
        return (y if self.bias is None else y + self.bias).to(base.dtype)

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,), without forming B A."""
        with torch.autocast(self.weight.device.type, enabled=False):
            lora_a: Tensor = self.lora_a
            lora_b = self.scale * self.lora_b
            if not self.exact_norm:
                lora_a, lora_b = lora_a.detach(), lora_b.detach()
            slope_rO = lora_a @ self.weight.T + (lora_a @ lora_a.T) @ lora_b.T
            return row_norm(self._squared_rows(), lora_a, lora_b, slope_rO)

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
                kept = self._base_squared = self.weight.detach().square().sum(1)
        return kept


def stacked(layers: Sequence[DoraLinear], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """[W0 | s B] (O, I + r) of layers as one, in `dtype`; and its A (r, I) and s B (O, r).

    With B's blocks on a diagonal, several layers are one: a row of B sees its own layer's A only. W0 is cast once, s B is written at
    every call.
    """
    first = layers[0]
    lora_a = torch.cat([layer.lora_a for layer in layers])
    lora_b = torch.block_diag(*[layer.scale * layer.lora_b for layer in layers])
    wide, shape = first._base_wide, (len(lora_b), lora_a.shape[1] + len(lora_a))
    if (
        wide is None
        or (wide.shape, wide.dtype, wide.device) != (shape, dtype, lora_b.device)
        or any(layer._base_wide is not wide for layer in layers)  # one of them was given other weights since
    ):
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
            wide = torch.empty(shape, dtype=dtype, device=lora_b.device)
            wide[:, : lora_a.shape[1]] = torch.cat([layer.weight for layer in layers])
        for layer in layers:
            layer._base_wide = wide
    # Past autograd's count of versions: a graph that still needs s B keeps the tensor `lora_b` itself.
    wide.data[:, lora_a.shape[1] :] = lora_b.detach()
    return wide, lora_a, lora_b


def row_norm(squared: Tensor, lora_a: Tensor, lora_b: Tensor, slope_rO: Tensor) -> Tensor:
    """||W0 + s B A|| of each row, (O,), at least `TINY`: the root of ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

    That costs O I r products instead of O I (r + 1), and no (O, I) copy.

    Args:
        squared: ||w_i||^2, (O,).
        lora_a, lora_b: A (r, I) and s B (O, r).
        slope_rO: A (W0 + s B A)^T, half the gradient of the square by s B.
    """
    cross_Or = 2 * slope_rO.T - lora_b @ (lora_a @ lora_a.T)
    return (squared + (lora_b * cross_Or).sum(1)).clamp_min(TINY**2).sqrt()


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What autocast makes of their product."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class DoraProduct(torch.autograd.Function):
    """z = W0 x + s B A x, row by row of x, and the factor m / ||W0 + s B A|| that belongs to each of its features; W0 is frozen.

    s B A x rides along with the base product, as r more columns of input and weight. So does the norm: A's own rows, laid under x,
    come out as A (W0 + s B A)^T.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        base: Tensor,
        lora_a: Tensor,
        lora_b: Tensor,
        magnitude: Tensor | None,
        squared: Tensor | None,
        exact_norm: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """(T, O) in W0's type, and (O,) fp32; without a magnitude that is LoRA, and there is no factor.

        Args:
            x: (T, I).
            base, lora_a, lora_b: as `stacked` gives them.
            magnitude, squared: m and ||w_i||^2, (O,).
            exact_norm: let the gradient pass through the norm.
        """
        tokens, (rank, inputs) = len(x), lora_a.shape
        rows = tokens if magnitude is None else tokens + rank
        xh = torch.empty(rows, inputs + rank, dtype=base.dtype, device=x.device)
        x_RI, h_Rr = xh.split((inputs, rank), dim=1)
        a_rI = lora_a.to(base.dtype)
        x_RI[:tokens] = x
        x_RI[tokens:] = a_rI[: rows - tokens]
        h_Rr.copy_(x_RI @ a_rI.T)
        z_RO = xh @ base.T
        ctx.tokens, ctx.dtype, ctx.exact_norm = tokens, x.dtype, exact_norm
        if magnitude is None or squared is None:
            ctx.save_for_backward(xh, base, a_rI, lora_a, lora_b)
            return z_RO, None
        slope_rO = z_RO[tokens:]
        norm_O = row_norm(squared, lora_a, lora_b, slope_rO.to(magnitude.dtype))
        ctx.save_for_backward(xh, base, a_rI, lora_a, lora_b, magnitude, norm_O, slope_rO)
        return z_RO[:tokens], magnitude / norm_O

    @staticmethod
    def backward(ctx: Any, g_TO: Tensor, g_factor: Tensor | None) -> tuple[Tensor | None, ...]:
        xh, base, a_rI, lora_a, lora_b, *dora = ctx.saved_tensors
        rank, inputs = a_rI.shape
        x_TI, h_Tr = xh[: ctx.tokens].split((inputs, rank), dim=1)
        w_OI, b_Or = base.split((inputs, rank), dim=1)
        gh_Tr = g_TO @ b_Or
        grad_a, grad_b = (gh_Tr.T @ x_TI).to(lora_a.dtype), (g_TO.T @ h_Tr).to(lora_a.dtype)
        grad_m = None
        if dora and g_factor is not None:
            magnitude, norm_O, slope_rO = dora
            grad_m = g_factor / norm_O
            if ctx.exact_norm:
                # Half the gradient of ||.||^2, which a clamped row does not pass on.
                half_O = torch.where(norm_O > TINY, -grad_m * magnitude / norm_O.square(), 0.0)
                through_rI, low_rr = (
                    ((half_O * lora_b.T).to(base.dtype) @ base).to(lora_a.dtype).split((inputs, rank), 1)
                )
                grad_a += torch.addmm(through_rI, low_rr, lora_a)
                grad_b.addcmul_(half_O[:, None], slope_rO.T.to(grad_b.dtype))
        grad_x = (g_TO @ w_OI).addmm_(gh_Tr, a_rI).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, None, grad_a, grad_b, grad_m, None, None


def _forget_base(layer: nn.Module, _keys: object) -> None:
    layer._base_squared = layer._base_wide = None  # type: ignore[assignment]
