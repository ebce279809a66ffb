"""Attention within each sequence of a token stream, by Triton's kernels: one program for each sequence and head.

Kernels for long texts give a program 128 queries. A sentence has some twenty tokens, so most of such a block is idle; here blocks have
16 or 32 rows, and longer sequences take several in turn. Sums are in a fixed order, so equal inputs give equal bits, which does not hold for
the backward of torch's flash kernel.

Shapes: T tokens, N sequences (filler included), H heads, K head width, D = H K; q, k and v are side by side in a row of 3 D.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton compiles these functions from their source and reads annotations itself.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtbert.fast.cuda.kernels import kept
from mtbert.fast.cuda.mask import Mask, launch

# Queries, and keys, of a block, and its warps: the fastest of those tried on an H200.
FORWARD = {"BLOCK": 16, "num_warps": 1}
BACKWARD = {"BLOCK": 32, "num_warps": 4}


@triton.jit
def _block(first, start, length, stride, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Places of rows `start` to `start + BLOCK` of a sequence, and which of these elements exist, both (BLOCK, WIDTH)."""
    row = start + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    real = (row[:, None] < length) & (column[None, :] < K)
    return (first + row)[:, None] * stride + column[None, :], real


@triton.jit
def _kept(seed, site, first, i, j, head, p, H: tl.constexpr, BLOCK: tl.constexpr):
    """Which weights of a block dropout keeps, (BLOCK, BLOCK): a function of token, head and key, so not of the size of blocks."""
    query = (first + i + tl.arange(0, BLOCK)) * H + head
    key = j // 4 + tl.arange(0, BLOCK // 4)  # below 1024: sequences of up to 4,096 tokens
    return kept(seed, site, query[:, None] * 1024 + key[None, :], p, BLOCK, BLOCK)


@triton.jit
def _scores(q, k, j, length, factor, BLOCK: tl.constexpr):
    """q k^T / sqrt(K); -inf where there is no key."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * factor
    return tl.where((j + tl.arange(0, BLOCK))[None, :] < length, scores, float("-inf"))


@triton.jit(do_not_specialize=["rows", "site"])
def attention(
    qkv, offsets, out, logsum, seed, site, p, scale, factor, rows,
    H: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """dropout(softmax(q k^T / sqrt(K))) v, and the log of each softmax's sum, (H, T)."""
    n, head = tl.program_id(0), tl.program_id(1)
    first = tl.load(offsets + n)
    length = tl.load(offsets + n + 1) - first
    q_of, k_of, v_of = qkv + head * K, qkv + (H + head) * K, qkv + (2 * H + head) * K
    i = 0
    while i < length:
        place, real = _block(first, i, length, 3 * H * K, K, WIDTH, BLOCK)
        q = tl.load(q_of + place, real, 0)
        most = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, WIDTH), tl.float32)
        j = 0
        while j < length:
            at, there = _block(first, j, length, 3 * H * K, K, WIDTH, BLOCK)
            s = _scores(q, tl.load(k_of + at, there, 0), j, length, factor, BLOCK)
            now = tl.maximum(most, tl.max(s, 1))
            weights = tl.exp(s - now[:, None])
            before = tl.exp(most - now)
            total = total * before + tl.sum(weights, 1)
            if DROP:
                weights = tl.where(_kept(seed, site, first, i, j, head, p, H, BLOCK), weights * scale, 0)
            v = tl.load(v_of + at, there, 0)
            mixed = mixed * before[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            most = now
            j += BLOCK
        row = i + tl.arange(0, BLOCK)
        place, real = _block(first, i, length, H * K, K, WIDTH, BLOCK)
        tl.store(out + head * K + place, mixed / total[:, None], real)
        tl.store(logsum + head * rows + first + row, most + tl.log(total), row < length)
        i += BLOCK


@triton.jit
def _score_gradients(
    q, k, v, g, out, logsum, seed, site, first, i, j, length, head, p, scale, factor,
    H: tl.constexpr, BLOCK: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """For a block of queries and keys, the weights that multiply v, after dropout, and the gradient of q k^T, both (BLOCK, BLOCK).

    With weights P = softmax(S), G the gradient of P after dropout's factor, and d = rowsum(P * G) = rowsum(out * g):
    dS = P * (G - d).
    """
    weights = tl.exp(_scores(q, k, j, length, factor, BLOCK) - logsum[:, None])
    of_weights = tl.dot(g, tl.trans(v), input_precision="ieee")
    dropped = weights
    if DROP:
        keep = _kept(seed, site, first, i, j, head, p, H, BLOCK)
        dropped = tl.where(keep, weights * scale, 0)
        of_weights = tl.where(keep, of_weights * scale, 0)
    d = tl.sum(out.to(tl.float32) * g.to(tl.float32), 1)
    return dropped, weights * (of_weights - d[:, None]) * factor


@triton.jit(do_not_specialize=["rows", "site"])
def attention_backward(
    grad, qkv, offsets, out, logsum, g_qkv, seed, site, p, scale, factor, rows,
    H: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """The gradients of q, k and v, side by side."""
    n, head = tl.program_id(0), tl.program_id(1)
    first = tl.load(offsets + n)
    length = tl.load(offsets + n + 1) - first
    q_of, k_of, v_of = head * K, (H + head) * K, (2 * H + head) * K
    # k and v, block by block; with one block, the gradient of q too.
    j = 0
    while j < length:
        at, there = _block(first, j, length, 3 * H * K, K, WIDTH, BLOCK)
        k, v = tl.load(qkv + k_of + at, there, 0), tl.load(qkv + v_of + at, there, 0)
        of_k = tl.zeros((BLOCK, WIDTH), tl.float32)
        of_v = tl.zeros((BLOCK, WIDTH), tl.float32)
        i = 0
        while i < length:
            place, real = _block(first, i, length, 3 * H * K, K, WIDTH, BLOCK)
            beside, real = _block(first, i, length, H * K, K, WIDTH, BLOCK)
            row = i + tl.arange(0, BLOCK)
            q, g = tl.load(qkv + q_of + place, real, 0), tl.load(grad + head * K + beside, real, 0)
            # Rows beyond the sequence get weights of exp(-inf) = 0.
            sums = tl.load(logsum + head * rows + first + row, row < length, float("inf"))
            dropped, of_s = _score_gradients(
                q, k, v, g, tl.load(out + head * K + beside, real, 0), sums, seed, site, first, i, j, length, head, p,
                scale, factor, H, BLOCK, DROP,
            )  # fmt: skip
            of_v += tl.dot(tl.trans(dropped.to(g.dtype)), g, input_precision="ieee")
            of_k += tl.dot(tl.trans(of_s.to(q.dtype)), q, input_precision="ieee")
            if length <= BLOCK:
                of_q = tl.dot(of_s.to(k.dtype), k, input_precision="ieee")
                tl.store(g_qkv + q_of + place, of_q, real)
            i += BLOCK
        tl.store(g_qkv + k_of + at, of_k, there)
        tl.store(g_qkv + v_of + at, of_v, there)
        j += BLOCK
    # q in longer sequences, block by block.
    i = tl.where(length <= BLOCK, length, 0)
    while i < length:
        place, real = _block(first, i, length, 3 * H * K, K, WIDTH, BLOCK)
        beside, real = _block(first, i, length, H * K, K, WIDTH, BLOCK)
        row = i + tl.arange(0, BLOCK)
        q, g = tl.load(qkv + q_of + place, real, 0), tl.load(grad + head * K + beside, real, 0)
        o = tl.load(out + head * K + beside, real, 0)
        sums = tl.load(logsum + head * rows + first + row, row < length, float("inf"))
        of_q = tl.zeros((BLOCK, WIDTH), tl.float32)
        j = 0
        while j < length:
            at, there = _block(first, j, length, 3 * H * K, K, WIDTH, BLOCK)
            k, v = tl.load(qkv + k_of + at, there, 0), tl.load(qkv + v_of + at, there, 0)
            _unused, of_s = _score_gradients(
                q, k, v, g, o, sums, seed, site, first, i, j, length, head, p, scale, factor, H, BLOCK, DROP
            )
            of_q += tl.dot(of_s.to(k.dtype), k, input_precision="ieee")
            j += BLOCK
        tl.store(g_qkv + q_of + place, of_q, real)
        i += BLOCK


class Attention(torch.autograd.Function):
    """dropout(softmax(q k^T / sqrt(K))) v within each sequence, (T, D)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, offsets: Tensor, heads: int, mask: Mask) -> Tensor:
        """Args: offsets: the first token of each sequence, then T, (N + 1,) int32."""
        rows, width = qkv.shape[0], qkv.shape[1] // 3 // heads
        out, logsum = qkv.new_empty(rows, heads * width), qkv.new_empty(heads, rows, dtype=torch.float32)
        ctx.sizes = {"H": heads, "K": width, "WIDTH": max(16, triton.next_power_of_2(width)), "DROP": mask.p > 0}
        ctx.grid, ctx.numbers = (len(offsets) - 1, heads), (*mask.arguments(), width**-0.5, rows)
        launch(attention, ctx.grid, qkv, offsets, out, logsum, *ctx.numbers, **ctx.sizes, **FORWARD)
        ctx.save_for_backward(qkv, offsets, out, logsum)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, offsets, out, logsum = ctx.saved_tensors
        g_qkv = torch.empty_like(qkv)
        launch(
            attention_backward, ctx.grid, grad.contiguous(), qkv, offsets, out, logsum, g_qkv, *ctx.numbers,
            **ctx.sizes, **BACKWARD,
        )  # fmt: skip
        return g_qkv, None, None, None
