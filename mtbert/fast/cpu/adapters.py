"""The products of several LoRA or DoRA layers as one, with its own backward.

Shapes: T rows of input; L layers of one shape, each with O outputs, I inputs and rank r.

The low-rank products are part of the base product, as L r more columns of input and weight. Kernels compute DoRA's norm
||W0 + s B A||, without forming B A, and its gradient. DoRA adds two passes over (T, L O) to LoRA: the factor in the
forward and, in the backward, the sum over T for its gradient; both are in passes.py.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbert.fast.cpu.call import LANES, call
from mtbert.fast.cpu.passes import Product
from mtbert.peft.dora import TINY, DoraLinear
from mtbert.peft.lora import LoraLinear

Layers = tuple[Tensor, ...]  # one tensor per layer


class Frozen(NamedTuple):
    """What a product needs besides its input and the trainable parameters.

    Attributes:
        extended: [W0 | s B], (L O, I + L r), in the type of products. Each layer has rows and, for s B, columns of its
            own, with zeros elsewhere; s B is written in every forward.
        squares: ||w_i||^2 of each layer, (O,); None for LoRA.
        scale: s.
        exact_norm: differentiate the norm.
    """

    extended: Tensor
    squares: Layers | None
    scale: float
    exact_norm: bool


class Bases:
    """Cached [W0 | 0] and ||w_i||^2 of adapted layers; W0 is frozen, so only loading weights renews them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[list[Tensor], list[int], Tensor, Layers]] = {}  # by the first weight's id

    def of(self, layers: Sequence[LoraLinear], dtype: torch.dtype) -> tuple[Tensor, Layers]:
        """`extended` in `dtype`, with room for s B, and `squares`."""
        weights: list[Tensor] = [layer.weight for layer in layers]
        versions = [-1 if weight.is_inference() else weight._version for weight in weights]
        known = self._kept.get(id(weights[0]))
        if (
            known is not None
            and all(map(operator.is_, known[0], weights))
            and known[1] == versions
            and -1 not in versions
            and known[2].dtype == dtype
        ):
            return known[2:]
        outputs, ranks = (sum(layer.lora_b.shape[axis] for layer in layers) for axis in (0, 1))
        inputs = weights[0].shape[1]
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
            extended = torch.zeros(outputs, inputs + ranks, dtype=dtype)
            extended[:, :inputs] = torch.cat(weights)
            squares = tuple(weight.detach().square().sum(1) for weight in weights)
        self._kept[id(weights[0])] = weights, versions, extended, squares
        return extended, squares


def adapted(layers: Sequence[LoraLinear], x: Tensor, bases: Bases) -> Product | None:
    """The outputs of layers of one shape for x (T, I), side by side; None if there is dropout on the input of the update."""
    first = layers[0]
    if first.training and first.dropout.p > 0:
        return None
    extended, squares = bases.of(layers, x.dtype)
    frozen = Frozen(extended, None, first.scale, False)
    if isinstance(first, DoraLinear):
        frozen = Frozen(extended, squares, first.scale, first.exact_norm)
    parameters = [getattr(layer, name) for name in first.added for layer in layers]  # A, B and DoRA's m
    with torch.autocast("cpu", enabled=False):
        z, factor = AdapterProduct.apply(x, frozen, *parameters)
    return Product(z, factor, None if first.bias is None else torch.cat([layer.bias for layer in layers]))


class AdapterProduct(torch.autograd.Function):
    """z = W0 x + s B A x for each row of x, and DoRA's factor m / ||W0 + s B A|| for each feature of z. W0 is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Frozen, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """z, (T, L O), in the type of `extended`, and the factor, (L O,), or None for LoRA.

        Args:
            x: (T, I).
            frozen: the same layers' frozen tensors.
            parameters: A (r, I) of each layer, then B (O, r) of each, then, for DoRA, m (O,) of each.
        """
        extended, squares, scale, _ = frozen
        a, b, m = _kinds(parameters, squares)
        a_RI = torch.cat(a).to(extended.dtype)
        # Written through .data, so autograd does not see it: a graph that still needs s B has saved B.
        for one, place in zip(b, _blocks(extended.data[:, x.shape[1] :], len(b)), strict=True):
            torch.mul(one, scale, out=place)
        xh = extended.new_empty(len(x), extended.shape[1])
        x_, h_ = xh.split(a_RI.shape[::-1], dim=1)
        x_.copy_(x)
        h_.copy_(x_ @ a_RI.T)
        ctx.frozen, ctx.dtype = frozen, x.dtype
        if squares is None:
            ctx.save_for_backward(xh, a_RI, None, None, *parameters)
            return xh @ extended.T, None
        factor, norm = squares[0].new_empty(2, len(extended))
        slope = norm.new_empty(len(extended), -(-len(a[0]) // LANES) * LANES)  # (W0 + s B A) A^T
        call("dora_norm", extended, extended, a, b, squares, m, scale, TINY**2, *_sizes(a, b), slope, norm, factor)
        ctx.save_for_backward(xh, a_RI, norm, slope, *parameters)
        return xh @ extended.T, factor

    @staticmethod
    def backward(ctx: Any, g_z: Tensor, g_factor: Tensor | None) -> tuple[Tensor | None, ...]:
        extended, squares, scale, exact_norm = ctx.frozen
        xh, a_RI, norm, slope, *parameters = ctx.saved_tensors
        a, b, m = _kinds(tuple(parameters), squares)
        x, h = xh.split(a_RI.shape[::-1], dim=1)
        w, scaled_b = extended.split(a_RI.shape[::-1], dim=1)
        g_h = g_z @ scaled_b
        g_a, g_scaled = (g_h.T @ x).view(len(a), *a[0].shape), _blocks(g_z.T @ h, len(b))
        g_x = (g_z @ w).addmm_(g_h, a_RI).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        if g_factor is not None and exact_norm:
            full_a, full_b = norm.new_empty(g_a.shape), norm.new_empty(g_scaled.shape)
            g_m = norm.new_empty(len(m), len(m[0]))
            call(
                "dora_norm_backward", extended, extended, a, b, m, scale, TINY, *_sizes(a, b), norm, slope, g_factor.contiguous(),
                g_a, g_scaled.contiguous(), full_a, full_b, g_m,
            )  # fmt: skip
            return g_x, None, *full_a, *full_b, *g_m
        g_a, g_b = g_a.to(a[0].dtype), scale * g_scaled.to(b[0].dtype)
        return g_x, None, *g_a, *g_b, *(() if g_factor is None else (g_factor / norm).view(len(m), -1))


def _sizes(a: Layers, b: Layers) -> tuple[int, ...]:
    """L, r, I, O."""
    return (len(a), *a[0].shape, len(b[0]))


def _blocks(matrix: Tensor, layers: int) -> Tensor:
    """The blocks on the diagonal, (L, ., .), of a matrix (L ., L .)."""
    return matrix.unflatten(1, (layers, -1)).unflatten(0, (layers, -1)).diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _kinds(parameters: Layers, squares: Layers | None) -> tuple[Layers, Layers, Layers]:
    """A, B and m of each layer; no m for LoRA."""
    layers = len(parameters) // (2 if squares is None else 3)
    return parameters[:layers], parameters[layers : 2 * layers], parameters[2 * layers :]
