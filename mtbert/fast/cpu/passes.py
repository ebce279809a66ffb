"""What the encoder computes between matrix products, in one pass over memory each.

The pass that reads a product also applies its bias and DoRA's factor. Shapes: T tokens, D hidden, O outputs of a layer.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtbert.fast.cpu.call import Mask, call, mask
from mtbert.model.dropout import Dropout

# z is recomputed as (y - bias) / factor only for larger factors. y comes from an fp32 sum, with an error of about 1e-6
# of the sum.
SMALLEST_FACTOR = 2**-6


class Product(NamedTuple):
    """A linear layer's output, y = factor * z + bias, before bias and factor are applied.

    Attributes:
        z: (T, O), in the type of products.
        factor, bias: (O,) fp32; None stands for 1 and 0.
    """

    z: Tensor
    factor: Tensor | None = None
    bias: Tensor | None = None


class States(NamedTuple):
    """Hidden states (T, D) in two types.

    Attributes:
        wide: in fp32, for residual sums.
        narrow: in the type of products, for the next layer.
        origin: x^ (T, D), gamma and beta (D,) with states = x^ * gamma + beta; None if the states are no norm's output.
    """

    wide: Tensor
    narrow: Tensor
    origin: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def first(cls, x_TD: Tensor) -> "States":
        """The input of the encoder's first layer."""
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_TD.dtype
        return cls(x_TD, x_TD.to(narrow))

    def of(self, rows: Tensor) -> "States":
        """The states of some tokens, in fp32 only: they are read by a residual sum alone."""
        wide = self.wide.index_select(0, rows)
        return States(wide, wide)

    def plus(self, added: Tensor) -> "States":
        """The states with another summand, `added` (T, D), in the residual sum that reads them."""
        return States(self.wide + added, self.narrow)


def residual_norm(x: States, y: Product, norm: nn.LayerNorm, dropout: Dropout) -> States:
    """norm(x + dropout(y))."""
    keep, normalised = mask(dropout, y.z.numel(), len(y.z)), torch.empty_like(x.wide)
    origin = x.origin if _recoverable(y) else None
    out = ResidualNorm.apply(x.wide, *y, norm.weight, norm.bias, norm.eps, keep, normalised, origin)
    wide, narrow = (out, out) if torch.is_tensor(out) else out
    return States(wide, narrow, (normalised, norm.weight, norm.bias))


def gelu(y: Product) -> Tensor:
    """The exact (erf) GELU, (T, O), in z's type."""
    out: Tensor = Gelu.apply(*y)
    return out


def _recoverable(y: Product) -> bool:
    """Whether z can be recomputed from y to more digits than bf16 has; it is then not stored for the factor's gradient."""
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
        normalised: Tensor,
        origin: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Any:
        """The norm, (T, D), in fp32 and, where z is bf16, in bf16.

        Args:
            normalised: receives x^, (T, D); the norm is x^ * gamma + beta.
            origin: as in `States`, for x. If given, the backward recomputes z for the factor's gradient instead of
                storing it.
        """
        rows, width = x.shape
        wide, rstd, mean = torch.empty_like(x), x.new_empty(rows), x.new_empty(rows)
        narrow = None if z.dtype == x.dtype else torch.empty_like(z)
        call(
            "residual_norm", z, x, z, factor, bias, *mask, gamma, beta, eps, rows, width, normalised, rstd, mean,
            wide, narrow,
        )  # fmt: skip
        kept = None if factor is None or origin is not None else z
        ctx.save_for_backward(normalised, rstd, mean, kept, factor, bias, gamma, *(origin or (None, None, None)))
        ctx.mask, ctx.dtype = mask, z.dtype
        ctx.set_materialize_grads(False)
        return wide if narrow is None else (wide, narrow)

    @staticmethod
    def backward(ctx: Any, g_wide: Tensor | None, g_narrow: Tensor | None = None) -> tuple[Tensor | None, ...]:
        normalised, rstd, mean, z, factor, bias, gamma, *origin = ctx.saved_tensors
        rows, width = normalised.shape
        grad_x, sums = torch.empty_like(normalised), normalised.new_empty(4, width)
        grad_z = normalised.new_empty(normalised.shape, dtype=ctx.dtype)
        call(
            "residual_norm_backward", grad_z, _dense(g_wide), _dense(g_narrow), normalised, rstd, mean, z, factor, bias,
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
