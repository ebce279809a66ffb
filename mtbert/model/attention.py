"""Scaled dot-product attention within each sequence of a token stream: grouped and written out, or by CUDA's flash kernel.

Shapes: T tokens of the stream, P rows of it with padding, N sequences, D hidden, E = 3 D, H heads, K = D / H head width; a group
holds n sequences padded to L tokens.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.data.tokens import Block, Ragged, moved
from mtbert.model.dropout import Mask
from mtbert.model.fused import call, masked

# What a group costs beside its attention weights (its dozen calls of torch), and a row beside its share of them (its copies):
# in attention weights of one head. Measured with MiniLM on two cores; `benchmarks/` shows what a change does.
GROUP, ROW = 2500, 20


class Group(NamedTuple):
    """`n` neighbouring sequences, each padded to `length`.

    Attributes:
        rows: its n * length rows of the padded stream.
        mask: added to the scores, 0 for a real key and -inf for padding, (n * H, 1, L); None where nothing is padded.
        weights: its part of all attention weights.
    """

    n: int
    length: int
    rows: slice
    mask: Tensor | None
    weights: slice


@dataclass(frozen=True)
class Layout:
    """How a stream is laid out for attention on a device without a kernel for ragged sequences.

    A batch has nearly as many lengths as sequences, and small products cost their calls, not their arithmetic: neighbours in length
    share a group, as long as its padding costs less than another group would. Linear layers never see the padding.

    Attributes:
        groups: in stream order.
        there: the stream's row of each row of the padded stream, (P,); padding repeats a real one.
        back: the padded stream's row of each of the stream's real tokens, (tokens,).
        padding: the padded stream's rows that are padding, (P - tokens,).
        weights: how many attention weights a layer has.
    """

    groups: tuple[Group, ...]
    there: Tensor
    back: Tensor
    padding: Tensor
    weights: int


class Packed(NamedTuple):
    """Where our own kernel finds sequences; a stream's filler is sequences of one token.

    Attributes:
        offsets: where sequences start, and T, (N + 1,) int32.
        places: where each sequence's attention weights start among all of a layer's, (N,) int64.
        weights: how many attention weights a layer has.
    """

    offsets: Tensor
    places: Tensor
    weights: int


def layout_for(
    blocks: tuple[Block, ...], tokens: int, heads: int, x_TD: Tensor, fused: bool
) -> "Layout | Ragged | Packed":
    """The layout for attention where x is and in the precision that autocast asks for.

    Args:
        fused: our own kernel computes it.
    """
    if fused:
        return lay_out_packed(blocks, heads)
    if x_TD.is_cuda and torch.is_autocast_enabled("cuda"):
        return lay_out_ragged(blocks, tokens, x_TD.shape[0], x_TD.device)
    return lay_out_groups(blocks, tokens, heads, x_TD.device)


def lay_out_packed(blocks: tuple[Block, ...], heads: int) -> Packed:
    """The boundaries of a stream's sequences and of their attention weights."""
    lengths = np.repeat([block.length for block in blocks], [block.count for block in blocks])
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    places = np.concatenate(([0], np.cumsum(heads * lengths**2)))
    return Packed(torch.from_numpy(offsets.astype(np.int32)), torch.from_numpy(places[:-1]), int(places[-1]))


def lay_out_ragged(blocks: tuple[Block, ...], tokens: int, rows: int, device: torch.device) -> Ragged:
    """The boundaries of a stream of `rows` rows, of which the first `tokens` are no filler; the rest is one sequence."""
    lengths = np.repeat([block.length for block in blocks], [block.count for block in blocks])
    ends = np.cumsum(lengths)
    ends = ends[ends <= tokens]
    offsets = torch.from_numpy(np.concatenate(([0], ends, [rows])).astype(np.int32))
    return Ragged(moved(offsets, device), max(int(lengths[: len(ends)].max()), rows - tokens))


def lay_out_groups(blocks: tuple[Block, ...], tokens: int, heads: int, device: torch.device) -> Layout:
    """The cheapest layout of a stream; its filler, the rows from `tokens` on, takes no part."""
    lengths = np.repeat([block.length for block in blocks], [block.count for block in blocks])
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1]
    groups, real, row, weight = [], [], 0, 0
    for first, last in _cheapest(lengths):
        n, longest = last - first, int(lengths[first:last].max())
        inside = np.arange(longest) < lengths[first:last, None]
        mask = None
        if not inside.all():
            outside = torch.from_numpy(np.where(inside, np.float32(0), np.float32("-inf")))
            mask = moved(outside, device).repeat_interleave(heads, 0)[:, None]
        rows, weights = n * longest, n * heads * longest * longest
        groups.append(Group(n, longest, slice(row, row + rows), mask, slice(weight, weight + weights)))
        real.append(inside.reshape(-1))
        row, weight = row + rows, weight + weights
    is_real = np.concatenate(real)
    there = np.maximum(np.cumsum(is_real) - 1, 0)
    orders = (there, is_real.nonzero()[0], (~is_real).nonzero()[0])
    there_P, back, padding = (moved(torch.from_numpy(order), device) for order in orders)
    return Layout(tuple(groups), there_P, back, padding, weight)


def _cheapest(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Split sequences, (N,) lengths in stream order, into runs so that weights, rows and groups cost least: (first, last + 1)."""
    ends = [*(np.diff(lengths).nonzero()[0] + 1).tolist(), len(lengths)]  # a run of equal lengths is never split
    starts = np.array([0, *ends[:-1]])
    best, before = np.zeros(len(ends) + 1), []
    for i, end in enumerate(ends):
        # Lengths rise within a stream; the maximum is for the filler's sake, or for blocks made by hand.
        longest = np.maximum.accumulate(lengths[starts[: i + 1]][::-1])[::-1]
        costs = best[: i + 1] + GROUP + (end - starts[: i + 1]) * longest * (longest + ROW)
        before.append(int(costs.argmin()))
        best[i + 1] = costs[before[-1]]
    runs, i = [], len(ends)
    while i:
        runs.append((int(starts[before[i - 1]]), ends[i - 1]))
        i = before[i - 1]
    return runs[::-1]


class PackedAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(K)) v of q, k, v = factor * z + bias, sequence by sequence, by our own kernel.

    All of it is fp32; attention weights are computed again in the backward rather than kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z_TE: Tensor,
        factor: Tensor | None,
        bias: Tensor | None,
        layout: Packed,
        heads: int,
        mask: Mask | None,
    ) -> Tensor:
        """Mixed values (T, D) in z's type.

        Args:
            z_TE: the product for q, k and v side by side, E = 3 D, each with its heads side by side.
            factor, bias: (E,), as in `Product`.
            mask: dropout on the attention weights, which lie sequence by sequence and in it head by head.
        """
        rows, width = len(z_TE), z_TE.shape[1] // 3
        mixed = z_TE.new_empty(rows, width)
        shape = (layout.offsets, layout.places, len(layout.places), heads, width // heads)
        call("attention", z_TE, z_TE, factor, bias, *masked(mask), *shape, mixed)
        ctx.save_for_backward(z_TE, factor, bias)
        ctx.shape, ctx.mask = shape, mask
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z_TE, factor, bias = ctx.saved_tensors
        grad_z, sums = torch.empty_like(z_TE), z_TE.new_empty(2, z_TE.shape[1], dtype=torch.float32)
        call(
            "attention_backward", z_TE, grad.contiguous(), z_TE, factor, bias, *masked(ctx.mask), *ctx.shape, grad_z, sums,
        )  # fmt: skip
        return grad_z, None if factor is None else sums[1], None if bias is None else sums[0], None, None, None


class GroupedAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(K)) v per sequence: padding has weight zero exactly, and a neighbour cannot change a sequence's result.

    Everything is fp32 (or fp64, if q is): products of a few tokens are as fast so on a CPU as in bf16, and softmax is more exact. Plain
    batched products with the exact softmax backward beat the backward of torch's CPU flash attention several times over.
    """

    @staticmethod
    def forward(ctx: Any, qkv_TE: Tensor, layout: Layout, heads: int, keep: Tensor | None) -> Tensor:
        """Mixed values (T, D) in q's type; zero for filler.

        Args:
            qkv_TE: q, k and v side by side, E = 3 D, each with its heads side by side.
            layout: of `lay_out_groups`.
            keep: dropout on the attention weights, as factors of all of them in group order, or None.
        """
        width = qkv_TE.shape[1] // (3 * heads)
        exact = torch.promote_types(qkv_TE.dtype, torch.float32)
        padded_PE = qkv_TE.index_select(0, layout.there)
        mixed_PD = qkv_TE.new_empty(len(padded_PE), heads * width)
        saved = []
        for group in layout.groups:
            qkv = _by_head(padded_PE[group.rows], group, 3, heads, exact)
            q, k, v = qkv
            weight = _scores(q, k, group.mask, width).softmax(-1)
            mixed = torch.bmm(weight if keep is None else weight * keep[group.weights].view_as(weight), v)
            _by_token(mixed, group, 1, heads, mixed_PD[group.rows])
            saved += [qkv, weight]
        ctx.save_for_backward(keep, *saved)
        ctx.layout, ctx.heads, ctx.shape = layout, heads, qkv_TE.shape
        return _fill_up(mixed_PD.index_select(0, layout.back), len(qkv_TE))

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        keep, *saved = ctx.saved_tensors
        layout, heads = ctx.layout, ctx.heads
        g_PD = grad_TD.index_select(0, layout.there)
        g_PD.index_fill_(0, layout.padding, 0.0)
        grad_PE = grad_TD.new_empty(len(g_PD), ctx.shape[1])
        for group, qkv, weight in zip(layout.groups, saved[::2], saved[1::2], strict=True):
            q, k, v = qkv
            g = _by_head(g_PD[group.rows], group, 1, heads, qkv.dtype)[0]
            grads = torch.empty_like(qkv)
            dq, dk, dv = grads
            factor = None if keep is None else keep[group.weights].view_as(weight)
            torch.bmm((weight if factor is None else weight * factor).transpose(1, 2), g, out=dv)
            d_weight = torch.bmm(g, v.transpose(1, 2))
            if factor is not None:
                d_weight.mul_(factor)
            d_scores = torch.ops.aten._softmax_backward_data(d_weight, weight, -1, weight.dtype)
            d_scores.mul_(q.shape[-1] ** -0.5)
            torch.bmm(d_scores, k, out=dq)
            torch.bmm(d_scores.transpose(1, 2), q, out=dk)
            _by_token(grads, group, 3, heads, grad_PE[group.rows])
        return _fill_up(grad_PE.index_select(0, layout.back), len(grad_TD)), None, None, None


def ragged_attention(qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: float) -> Tensor:
    """The same on CUDA, (T, D), by torch's own flash kernel; dropout comes from CUDA's generator, seeded at each step.

    `torch.nn.attention.varlen` calls the same kernel, but leaves its dropout out.
    """
    q, k, v = qkv_TE.view(len(qkv_TE), 3, heads, -1).unbind(1)
    offsets, longest = ragged
    mixed: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, offsets, offsets, longest, longest, dropout, False, False
    )[0]
    return mixed.flatten(1)


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, width: int) -> Tensor:
    if mask is None:
        return torch.bmm(q, k.transpose(1, 2)).mul_(width**-0.5)
    return torch.baddbmm(mask.to(q.dtype), q, k.transpose(1, 2), alpha=width**-0.5)


def _by_head(rows: Tensor, group: Group, parts: int, heads: int, dtype: torch.dtype) -> Tensor:
    """Rows (n * L, parts * D) as (parts, n * H, L, K) in `dtype`, in one copy."""
    view = rows.view(group.n, group.length, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return torch.empty(view.shape, dtype=dtype, device=rows.device).copy_(view).flatten(1, 2)


def _by_token(x: Tensor, group: Group, parts: int, heads: int, rows: Tensor) -> None:
    """The way back: (parts, n * H, L, K) into rows (n * L, parts * D), in one copy."""
    view = x.view(parts, group.n, heads, group.length, -1).permute(1, 3, 0, 2, 4)
    rows.view(view.shape).copy_(view)


def _fill_up(x: Tensor, rows: int) -> Tensor:
    """Zero rows below x, up to so many."""
    return x if len(x) == rows else torch.cat((x, x.new_zeros(rows - len(x), x.shape[1])))
