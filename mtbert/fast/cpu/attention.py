"""Scaled dot-product attention within each sequence of a token stream, by our kernel, without padding.

Shapes: T tokens of the stream, N sequences (filler included), D hidden, E = 3 D, H heads, K = D / H head width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbert.data.tokens import TokenStream
from mtbert.fast.cpu.call import Mask, call

HEAD_WIDTHS = (16, 32, 64)  # that the kernel takes


class Packed(NamedTuple):
    """A token stream's sequences, as the kernel reads them.

    Attributes:
        offsets: the first token of each sequence, then T, (N + 1,) int32.
        places: index of each sequence's first attention weight among all of a layer, (N,) int64.
        weights: number of attention weights in a layer.
    """

    offsets: Tensor
    places: Tensor
    weights: int

    @classmethod
    def of(cls, stream: TokenStream, heads: int) -> "Packed":
        ends = heads * stream.offsets.diff().square().cumsum(0)
        return cls(stream.offsets.int(), torch.cat((ends.new_zeros(1), ends[:-1])), int(ends[-1]))


class PackedAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(K)) v of q, k, v = factor * z + bias, sequence by sequence.

    Arithmetic is fp32. The backward recomputes the attention weights.
    """

    @staticmethod
    def forward(
        ctx: Any, z_TE: Tensor, factor: Tensor | None, bias: Tensor | None, packed: Packed, heads: int, mask: Mask
    ) -> Tensor:
        """The attention's output, (T, D), in z's type.

        Args:
            z_TE: the product for q, k and v side by side, each with its heads side by side.
            factor, bias: (E,), as in `Product`.
            mask: dropout on the attention weights, which are ordered by sequence, then by head.
        """
        rows, width = len(z_TE), z_TE.shape[1] // 3
        mixed = z_TE.new_empty(rows, width)
        shape = (packed.offsets, packed.places, len(packed.places), heads, width // heads)
        call("attention", z_TE, z_TE, factor, bias, *mask, *shape, mixed)
        ctx.save_for_backward(z_TE, factor, bias)
        ctx.shape, ctx.mask = shape, mask
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z_TE, factor, bias = ctx.saved_tensors
        grad_z, sums = torch.empty_like(z_TE), z_TE.new_empty(2, z_TE.shape[1], dtype=torch.float32)
        call("attention_backward", z_TE, grad.contiguous(), z_TE, factor, bias, *ctx.mask, *ctx.shape, grad_z, sums)
        return grad_z, None if factor is None else sums[1], None if bias is None else sums[0], None, None, None
