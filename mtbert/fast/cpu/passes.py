"""What stands between an encoder's matrix products, as one pass over memory each.

A product's bias, and DoRA's factor, wait for the pass that reads the product. Shapes: T tokens, D hidden, O outputs of a layer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtbert.fast.cpu.call import Mask, call, mask
from mtbert.model.dropout import Dropout

# A factor from which on z = (y - bias) / factor has its digits: y is fp32, and some 1e-6 of the sum that it was added to.
SMALLEST_FACTOR = 2**-6


class Product(NamedTuple):
    """A linear layer's output, y = factor * z + bias, not yet computed from its product.

    Attributes:
        z: (T, O), in the type of products.
        factor, bias: (O,) fp32; None for 1 and 0.
    """

    z: Tensor
    factor: Tensor | None = None
    bias: Tensor | None = None


class States(NamedTuple):
    """Hidden states twice, (T, D): in fp32 for residual sums, and in the type of products for the next layer.

    Attributes:
        origin: x^ (T, D), gamma and beta (D,), of which they are x^ * gamma + beta; None where x^ is not kept anyway.
    """

    wide: Tensor
    narrow: Tensor
    origin: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def first(cls, x_TD: Tensor) -> "States":
        """What an encoder's first layer sees."""
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_TD.dtype
        return cls(x_TD, x_TD.to(narrow))

    def of(self, rows: Tensor) -> "States":
        """The states of some tokens, for a residual sum, which is all that reads them then."""
        wide = self.wide.index_select(0, rows)
        return States(wide, wide)


def residual_norm(x: States, y: Product, norm: nn.LayerNorm, dropout: Dropout) -> States:
    """norm(x + dropout(y))."""
    drawn, normal = mask(dropout, y.z.numel()), torch.empty_like(x.wide)
    origin = x.origin if _recoverable(y) else None
    out = ResidualNorm.apply(x.wide, *y, norm.weight, norm.bias, norm.eps, drawn, normal, origin)
    wide, narrow = (out, out) if torch.is_tensor(out) else out
    return States(wide, narrow, (normal, norm.weight, norm.bias))


def gelu(y: Product) -> Tensor:
    """The exact (erf) GELU, (T, O), in z's type."""
    gelu_: Callable[..., Tensor] = Gelu.apply
    return gelu_(*y)


def _recoverable(y: Product) -> bool:
    """Whether y gives z back to more digits than bf16 has; z is then recomputed for the factor's gradient rather than kept."""
    if y.factor is None or y.z.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return False
    smallest = torch.linalg.vector_norm(y.factor.detach(), -torch.inf)
    return float(smallest) > SMALLEST_FACTOR


class ResidualNorm(torch.autograd.Function):
    """LayerNorm(x + dropout(factor * z + bias)), in fp32 and, where z is bf16, in bf16 as well."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        z: Tensor,
        factor: Tensor | None,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        mask: Mask,
        normal: Tensor,
        origin: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Any:
        """The norm, (T, D), in fp32 and, where z is bf16, in bf16.

        Args:
            normal: where x^, of which the norm is x^ * gamma + beta, goes.
            origin: what x was made of. With it the backward computes z again, rather than keep it, for the factor's gradient.
        """
        rows, width = x.shape
        wide, rstd, mean = torch.empty_like(x), x.new_empty(rows), x.new_empty(rows)
        narrow = None if z.dtype == x.dtype else torch.empty_like(z)
        call(
            "residual_norm", z, x, z, factor, bias, *mask, gamma, beta, eps, rows, width, normal, rstd, mean,
            wide, narrow,
        )  # fmt: skip
        kept = None if factor is None or origin is not None else z
        ctx.save_for_backward(normal, rstd, mean, kept, factor, bias, gamma, *(origin or (None, None, None)))
        ctx.mask, ctx.dtype = mask, z.dtype
        ctx.set_materialize_grads(False)
        return wide if narrow is None else (wide, narrow)

    @staticmethod
    def backward(ctx: Any, g_wide: Tensor | None, g_narrow: Tensor | None = None) -> tuple[Tensor | None, ...]:
        normal, rstd, mean, z, factor, bias, gamma, *origin = ctx.saved_tensors
        rows, width = normal.shape
        grad_x, sums = torch.empty_like(normal), normal.new_empty(4, width)
        grad_z = normal.new_empty(normal.shape, dtype=ctx.dtype)
        call(
            "residual_norm_backward", grad_z, _dense(g_wide), _dense(g_narrow), normal, rstd, mean, z, factor, bias,
            *origin, *ctx.mask, gamma, rows, width, grad_x, grad_z, sums,
        )  # fmt: skip
        g_factor, g_bias = (None if one is None else part for one, part in ((factor, sums[3]), (bias, sums[2])))
        return grad_x, grad_z, g_factor, g_bias, sums[0], sums[1], None, None, None, None


class Gelu(torch.autograd.Function):
    """gelu(factor * z + bias)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, factor: Tensor | None, bias: Tensor | None) -> Tensor:
        out = torch.empty_like(z)
        call("gelu", z, z, factor, bias, *z.shape, out)
        ctx.save_for_backward(z, factor, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, factor, bias = ctx.saved_tensors
        grad_z, sums = torch.empty_like(z), z.new_empty(2, z.shape[1], dtype=torch.float32)
        call("gelu_backward", z, _dense(grad), z, factor, bias, *z.shape, grad_z, sums)
        return grad_z, None if factor is None else sums[1], None if bias is None else sums[0]


def _dense(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()
