"""What stands between an encoder's matrix products, as one pass over memory each: on a CPU by our kernels, else by torch.

A product's bias, and DoRA's factor, wait for the pass that reads the product. Shapes: T tokens, D hidden, O outputs of a layer.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.kernels import build
from mtbert.model.dropout import Dropout, Mask
from mtbert.model.narrow import NarrowProduct, narrow

# A factor from which on z = (y - bias) / factor has its digits: y is fp32, and some 1e-6 of the sum that it was added to.
SMALLEST_FACTOR = 2**-6
LANES = 16  # widths that the kernels take are multiples of this
VARIANTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


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
        fused: whether the kernels are used on them; if not, both are one tensor.
        origin: x^ (T, D), gamma and beta (D,), of which they are x^ * gamma + beta; None where nobody keeps x^ anyway.
    """

    wide: Tensor
    narrow: Tensor
    fused: bool
    origin: tuple[Tensor, Tensor, Tensor] | None = None

    def of(self, rows: Tensor) -> "States":
        """The states of some tokens, for a residual sum, which is all that reads them then."""
        wide = self.wide.index_select(0, rows)
        return States(wide, wide, self.fused)


def states(x_TD: Tensor, fused: bool) -> States:
    """The states that an encoder's first layer sees."""
    if fused and torch.is_autocast_enabled("cpu"):
        return States(x_TD, x_TD.to(torch.get_autocast_dtype("cpu")), True)
    return States(x_TD, x_TD, fused)


def fits(x_TD: Tensor, hidden: int, heads: int, intermediate: int) -> bool:
    """Whether the kernels can do the work of an encoder of this size, where x is and in its type."""
    return (
        x_TD.device.type == "cpu"
        and x_TD.dtype == torch.float32
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16)
        and hidden // heads in (16, 32, 64)
        and intermediate % LANES == 0
        and build.available()
    )


def product(layer: Any, x: Tensor, fused: bool) -> Product:
    """The layer's output for x, (T, I); pending where a kernel will finish it."""
    return side_by_side((layer,), x, fused)


def side_by_side(layers: Sequence[Any], x: Tensor, fused: bool) -> Product:
    """What layers of one kind make of x, (T, I), next to each other, in one product if they know how."""
    first = layers[0]
    if type(first) is nn.Linear:
        bias = _joined([layer.bias for layer in layers])
        weights = [layer.weight for layer in layers]
        if fused and x.dtype == torch.bfloat16:
            z: Tensor = NarrowProduct.apply(x, narrow(weights), *weights)
            return Product(z, None, bias)
        weight = _joined(weights)
        return Product(F.linear(x, weight), None, bias) if fused else Product(F.linear(x, weight, bias))
    if hasattr(first, "side_by_side"):
        pending: Product = first.side_by_side(layers, x)
        return pending if fused else Product(finished(pending))
    return Product(_joined([layer(x) for layer in layers], dim=-1))


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def finished(y: Product) -> Tensor:
    """y itself, (T, O), in z's type, by torch."""
    if y.factor is not None:
        scaled: Tensor = Scaled.apply(*y)
        return scaled
    return y.z if y.bias is None else y.z + y.bias


def residual_norm(x: States, y: Product, norm: nn.LayerNorm, dropout: Dropout) -> States:
    """norm(x + dropout(y))."""
    if not x.fused:
        out_TD = norm(dropout.add(x.wide, y.z))
        return States(out_TD, out_TD, False)
    mask, normal = dropout.mask(y.z.numel()), torch.empty_like(x.wide)
    origin = x.origin if _recoverable(y) else None
    out = ResidualNorm.apply(x.wide, *y, norm.weight, norm.bias, norm.eps, mask, normal, origin)
    wide, narrow = (out, out) if torch.is_tensor(out) else out
    return States(wide, narrow, True, (normal, norm.weight, norm.bias))


def _recoverable(y: Product) -> bool:
    """Whether z can be had back from y to more digits than bf16 has, so that nobody need keep it for the factor's gradient."""
    if y.factor is None or y.z.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return False
    smallest = torch.linalg.vector_norm(y.factor.detach(), -torch.inf)
    return float(smallest) > SMALLEST_FACTOR


def gelu(y: Product, fused: bool) -> Tensor:
    """The exact (erf) GELU, (T, O), in z's type."""
    gelu_: Callable[..., Tensor] = Gelu.apply
    return gelu_(*y) if fused else F.gelu(y.z)


class Scaled(torch.autograd.Function):
    """factor * z + bias. The factor and its gradient stay fp32: in bf16 a magnitude could not move by less than 0.4%."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, factor)
        out = torch.empty_like(z)
        for part, z_ in zip(_chunks(out), _chunks(z), strict=True):
            scaled = z_.to(factor.dtype) * factor
            part.copy_(scaled if bias is None else scaled.add_(bias))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, factor = ctx.saved_tensors
        grad_z, grad_factor, grad_bias = torch.empty_like(z), torch.zeros_like(factor), torch.zeros_like(factor)
        for part, g, z_ in zip(_chunks(grad_z), _chunks(grad), _chunks(z), strict=True):
            exact = g.to(factor.dtype)
            grad_factor += (z_ * exact).sum(0)
            if ctx.needs_input_grad[2]:
                grad_bias += exact.sum(0)
            part.copy_(exact * factor)
        return grad_z, grad_factor, grad_bias if ctx.needs_input_grad[2] else None


def _chunks(x_TO: Tensor) -> tuple[Tensor, ...]:
    """Rows by a few dozen on a CPU: passes over fp32 copies then stay in its cache, which is most of what they cost."""
    return x_TO.split(max(1, 2**17 // x_TO.shape[1])) if x_TO.device.type == "cpu" else (x_TO,)


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
        mask: Mask | None,
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
            "residual_norm", z, x, z, factor, bias, *masked(mask), gamma, beta, eps, rows, width, normal, rstd, mean,
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
            *origin, *masked(ctx.mask), gamma, rows, width, grad_x, grad_z, sums,
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


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel in the variant for `like`'s type; tensors, contiguous ones, go as pointers, sequences of them as arrays of these."""
    function = getattr(build.library(), f"{name}_{VARIANTS[like.dtype]}")
    function(*map(_argument, arguments))


def _argument(one: Any) -> Any:
    if isinstance(one, Tensor):
        assert one.is_contiguous()
        return one.data_ptr()
    return (ctypes.c_void_p * len(one))(*map(_argument, one)) if isinstance(one, list | tuple) else one


def masked(mask: Mask | None) -> tuple[Tensor | None, int, float]:
    """A mask as the kernels take it."""
    return (None, 0, 1.0) if mask is None else mask


def _dense(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()
