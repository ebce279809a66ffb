"""Triton kernels for the merged weights W' = f V, V = W0 + s B A, of N layers of one shape. `fused_merge.py` calls them.

A program takes some rows or columns of one layer, of OUT outputs, IN inputs and a RANK, in blocks of ROWS, COLUMNS and RANKS. Matrices
are contiguous, in row order, and those of one layer have less than 2^31 elements. Sums are in fp32 and in a fixed order, so equal inputs
give equal bits. A product of fp32 is three of tf32 on tensor cores, which together keep fp32's precision.

With DoRA the backward reads W' instead of forming V: both have the same direction, V / ||V|| = W' / m. W' has half the bytes of W0 and needs
no product; its rounding to bf16 is no worse than G's. Where |m| is below TINY, W' has no direction, and 0 is used, as for a zero row: such
a row's m gets no gradient, unlike with torch's operations.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton compiles these functions from their source and reads annotations itself.

import triton
import triton.language as tl

from mtbert.peft import dora

TINY = tl.constexpr(dora.TINY)
# Triton's interpreter multiplies the bits of bf16.
HALF = tl.constexpr(tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16)


@triton.jit
def _matrix(start, row, column, rows, columns):
    """Some rows and columns of a matrix; 0 outside of it."""
    real = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(start + row[:, None] * columns + column[None, :], real, 0)


@triton.jit
def _store(start, row, column, rows, columns, values):
    real = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(start + row[:, None] * columns + column[None, :], values, real)


@triton.jit
def _of(tensors, place):
    """tensors[place], for a place known only at run time."""
    found = tensors[0]
    for n in tl.static_range(1, len(tensors)):
        found = tl.where(place == n, tensors[n], found)
    return found


@triton.jit
def _add_product(total, g, a):
    """total + g a, for a in fp32. If g is of bf16, a is the sum of two of bf16, which together keep more than twice as many bits as g."""
    if g.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        low = (a - high.to(tl.float32)).to(tl.bfloat16)
        total = tl.dot(g.to(HALF), low.to(HALF), total)
        total = tl.dot(g.to(HALF), high.to(HALF), total)
    else:
        total = tl.dot(g, a, total, input_precision="tf32x3")
    return total


@triton.jit
def _v(w0, sb, a, row, column, rank, OUT, IN, RANK):
    return _matrix(w0, row, column, OUT, IN) + tl.dot(sb, _matrix(a, rank, column, RANK, IN), input_precision="tf32x3")


@triton.jit
def merge(
    w0, a, b, m, scale, merged, scaled, norm,
    OUT: tl.constexpr, IN: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr, DORA: tl.constexpr,
):  # fmt: skip
    """W' and f s B of some rows of a layer, and with DoRA ||V||: V is formed twice, the second time from the L2 cache."""
    blocks = tl.cdiv(OUT, ROWS)
    layer = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    rank = tl.arange(0, RANKS)
    w0 += layer * OUT * IN
    a += layer * RANK * IN
    sb = scale * _matrix(b + layer * OUT * RANK, row, rank, OUT, RANK)
    factor = tl.full((ROWS,), 1, tl.float32)
    if DORA:
        squares = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in tl.range(0, IN, COLUMNS, num_stages=STAGES):
            v = _v(w0, sb, a, row, first + tl.arange(0, COLUMNS), rank, OUT, IN, RANK)
            squares += v * v
        length = tl.maximum(tl.sqrt_rn(tl.sum(squares, 1)), TINY)
        factor = tl.load(m + layer * OUT + row, row < OUT, 0) / length
        tl.store(norm + layer * OUT + row, length, row < OUT)
    _store(scaled + layer * OUT * RANK, row, rank, OUT, RANK, sb * factor[:, None])
    for first in tl.range(0, IN, COLUMNS, num_stages=STAGES):
        column = first + tl.arange(0, COLUMNS)
        v = _v(w0, sb, a, row, column, rank, OUT, IN, RANK)
        _store(merged + layer * OUT * IN, row, column, OUT, IN, v * factor[:, None])


@triton.jit
def merge_backward_rows(
    gradients, merged, a, m, norm, scale, g_b, g_m, along,
    OUT: tl.constexpr, IN: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr, DORA: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dB = s f E A^T of some rows of a layer; with DoRA dm = u too, and u / m: E = G - u / m W', or G if the norm is a constant.

    E A^T is the difference of two products, since u is known only after all columns.
    """
    blocks = tl.cdiv(OUT, ROWS)
    layer = tl.program_id(0) // blocks
    gradient = _of(gradients, layer)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    rank = tl.arange(0, RANKS)
    layer = layer.to(tl.int64)
    a += layer * RANK * IN
    of_g = tl.zeros((ROWS, RANKS), tl.float32)
    of_w = tl.zeros((ROWS, RANKS), tl.float32)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, IN, COLUMNS, num_stages=STAGES):
        column = first + tl.arange(0, COLUMNS)
        g = _matrix(gradient, row, column, OUT, IN)
        a_t = tl.trans(_matrix(a, rank, column, RANK, IN))
        of_g = _add_product(of_g, g, a_t)
        if DORA:
            w = _matrix(merged + layer * OUT * IN, row, column, OUT, IN)
            products += g.to(tl.float32) * w.to(tl.float32)
            if EXACT:
                of_w = _add_product(of_w, w, a_t)
    if DORA:
        real = row < OUT
        vector = layer * OUT + row
        magnitude = tl.load(m + vector, real, 0)
        length = tl.load(norm + vector, real, 1)
        known = tl.abs(magnitude) > TINY
        inverse = tl.where(known, 1 / tl.where(known, magnitude, 1), 0)
        u = tl.sum(products, 1) * inverse
        tl.store(g_m + vector, u, real)
        if EXACT:
            part = tl.where(length > TINY, u * inverse, 0)  # below, the norm is the constant TINY
            tl.store(along + vector, part, real)
            of_g -= part[:, None] * of_w
        of_g *= (magnitude / length)[:, None]
    _store(g_b + layer * OUT * RANK, row, rank, OUT, RANK, scale * of_g)


@triton.jit
def merge_backward_columns(
    gradients, merged, scaled, along, g_a,
    OUT: tl.constexpr, IN: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dA = (f s B)^T E of some columns of a layer."""
    blocks = tl.cdiv(IN, COLUMNS)
    layer = tl.program_id(0) // blocks
    gradient = _of(gradients, layer)
    column = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANKS)
    layer = layer.to(tl.int64)
    of_a = tl.zeros((RANKS, COLUMNS), tl.float32)
    for first in tl.range(0, OUT, ROWS, num_stages=STAGES):
        row = first + tl.arange(0, ROWS)
        e = _matrix(gradient, row, column, OUT, IN).to(tl.float32)
        if EXACT:
            w = _matrix(merged + layer * OUT * IN, row, column, OUT, IN).to(tl.float32)
            e -= tl.load(along + layer * OUT + row, row < OUT, 0)[:, None] * w
        fsb = _matrix(scaled + layer * OUT * RANK, row, rank, OUT, RANK)
        of_a = tl.dot(tl.trans(fsb), e, of_a, input_precision="tf32x3")
    _store(g_a + layer * RANK * IN, rank, column, RANK, IN, of_a)
