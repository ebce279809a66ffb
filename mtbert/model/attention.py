"""Scaled dot-product attention within each sequence of a token stream, with its backward written out.

Shapes: T tokens, D hidden, H heads, K = D / H head width; a block holds n sequences of equal length L.
"""

from typing import Any

import torch
from torch import Tensor

from mtbert.data.tokens import Block


def head_major(blocks: tuple[Block, ...], heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row orders between a stream's (T * H, K) rows and one (n * H, L, K) batch per block, there and back; (T * H,) each."""
    orders, start = [], 0
    for count, length in blocks:
        size = count * heads * length
        orders.append(torch.arange(start, start + size).view(count, length, heads).transpose(1, 2).reshape(-1))
        start += size
    there = torch.cat(orders)
    back = torch.empty_like(there)
    back[there] = torch.arange(start)
    return there.to(device), back.to(device)


class BlockAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(K)) v per block: no padding, no mask, and a neighbour cannot change a sequence's result.

    Everything is fp32 (or fp64, if q is): products of a few tokens are faster so on a CPU than in bf16, and softmax is more exact. Plain
    batched products with the exact softmax backward beat the backward of torch's CPU flash attention several times over.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_TD: Tensor,
        k_TD: Tensor,
        v_TD: Tensor,
        blocks: tuple[Block, ...],
        orders: tuple[Tensor, Tensor],
        keep: Tensor | None,
    ) -> Tensor:
        """Mixed values (T, D) in q's type.

        Args:
            q_TD, k_TD, v_TD: projections, heads side by side.
            blocks: the stream's.
            orders: of `head_major`.
            keep: dropout on the attention weights, as factors of all of them in block order, or None.
        """
        there, back = orders
        heads = len(there) // len(q_TD)
        width = q_TD.shape[1] // heads
        exact = torch.promote_types(q_TD.dtype, torch.float32)
        q, k, v = (x.to(exact).view(-1, width).index_select(0, there) for x in (q_TD, k_TD, v_TD))
        out = torch.empty_like(q)
        weights = []
        for rows, shape, part in _parts(blocks, heads):
            q_b, k_b, v_b, out_b = (x[rows].view(*shape, width) for x in (q, k, v, out))
            weight = torch.bmm(q_b, k_b.transpose(1, 2)).mul_(width**-0.5).softmax(-1)
            weights.append(weight)
            torch.bmm(weight if keep is None else weight * keep[part].view_as(weight), v_b, out=out_b)
        ctx.save_for_backward(q, k, v, keep, there, back, *weights)
        ctx.blocks, ctx.heads, ctx.dtype = blocks, heads, q_TD.dtype
        return out.index_select(0, back).view(q_TD.shape).to(q_TD.dtype)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keep, there, back, *weights = ctx.saved_tensors
        width = q.shape[1]
        g = grad_TD.to(q.dtype).reshape(-1, width).index_select(0, there)
        grads = tuple(torch.empty_like(q) for _ in range(3))
        for weight, (rows, shape, part) in zip(weights, _parts(ctx.blocks, ctx.heads), strict=True):
            q_b, k_b, v_b, g_b = (x[rows].view(*shape, width) for x in (q, k, v, g))
            dq, dk, dv = (grad[rows].view(*shape, width) for grad in grads)
            factor = None if keep is None else keep[part].view_as(weight)
            dropped = weight if factor is None else weight * factor
            torch.bmm(dropped.transpose(1, 2), g_b, out=dv)
            d_weight = torch.bmm(g_b, v_b.transpose(1, 2))
            if factor is not None:
                d_weight.mul_(factor)
            d_scores = torch.ops.aten._softmax_backward_data(d_weight, weight, -1, weight.dtype).mul_(width**-0.5)
            torch.bmm(d_scores, k_b, out=dq)
            torch.bmm(d_scores.transpose(1, 2), q_b, out=dk)
        dq_TD, dk_TD, dv_TD = (grad.index_select(0, back).view(grad_TD.shape).to(ctx.dtype) for grad in grads)
        return dq_TD, dk_TD, dv_TD, None, None, None


def weights_count(blocks: tuple[Block, ...], heads: int) -> int:
    """How many attention weights a layer has."""
    return sum(count * heads * length * length for count, length in blocks)


def _parts(blocks: tuple[Block, ...], heads: int) -> list[tuple[slice, tuple[int, int], slice]]:
    """Per block: its rows in head-major order, their (n * H, L) shape, and its part of all attention weights."""
    parts, row, weight = [], 0, 0
    for count, length in blocks:
        rows, weights = count * heads * length, count * heads * length * length
        parts.append((slice(row, row + rows), (count * heads, length), slice(weight, weight + weights)))
        row, weight = row + rows, weight + weights
    return parts
