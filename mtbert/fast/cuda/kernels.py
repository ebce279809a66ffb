"""Triton kernels for what the encoder computes between products. `fused.py` calls them.

Matrices of D columns are contiguous, in row order, and of less than 2^31 elements. Sums are in fp32 and in a fixed order, so equal inputs
give equal bits.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton compiles these functions from their source and reads annotations itself.

import triton
import triton.language as tl


@triton.jit
def kept(seed, site, place, p, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Which elements of a block dropout keeps, (ROWS, WIDTH): Philox with seed and site as key, and the places of four elements each,
    (ROWS, WIDTH / 4), as counter.
    """
    a, b, c, d = tl.rand4x(tl.load(seed) + site, place)
    return tl.join(tl.join(a, c), tl.join(b, d)).reshape(ROWS, WIDTH) >= p


@triton.jit
def _kept(seed, site, row, p, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Which elements of some rows dropout keeps, (ROWS, WIDTH)."""
    return kept(seed, site, row[:, None] * (WIDTH // 4) + tl.arange(0, WIDTH // 4)[None, :], p, ROWS, WIDTH)


@triton.jit(do_not_specialize=["site", "rows"])
def residual_norm(
    x, y, bias, gamma, beta, seed, site, p, scale, eps, wide, narrow, normalised, rstd, rows,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """LayerNorm(x + dropout(y + bias)) of some rows, in x's and in y's type. `seed` plus `site` is the mask's key."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = column < D
    real = (row < rows)[:, None] & inside[None, :]
    place = row[:, None] * D + column[None, :]
    z = tl.load(y + place, real, 0).to(tl.float32)
    if BIAS:
        z += tl.load(bias + column, inside, 0)[None, :]
    if DROP:
        z = tl.where(_kept(seed, site, row, p, ROWS, WIDTH), z * scale, 0)
    z += tl.load(x + place, real, 0)
    centred = tl.where(real, z - tl.sum(z, 1)[:, None] / D, 0)
    factor = tl.rsqrt(tl.sum(centred * centred, 1) / D + eps)
    z = centred * factor[:, None]
    out = z * tl.load(gamma + column, inside, 0)[None, :] + tl.load(beta + column, inside, 0)[None, :]
    tl.store(wide + place, out, real)
    tl.store(narrow + place, out, real)
    tl.store(normalised + place, z, real)
    tl.store(rstd + row, factor, row < rows)


@triton.jit(do_not_specialize=["rows", "site"])
def residual_norm_backward(
    g_wide, g_narrow, normalised, rstd, gamma, seed, site, p, scale, g_x, g_y, sums, rows,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, DROP: tl.constexpr,
    HAS_WIDE: tl.constexpr, HAS_NARROW: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The gradients of x and y, and of some rows' sums for the gradients of gamma, beta and bias: each program takes every n-th block of
    rows.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    column = tl.arange(0, WIDTH)
    inside = column < D
    weight = tl.load(gamma + column, inside, 0)[None, :]
    of_gamma = tl.zeros((ROWS, WIDTH), tl.float32)
    of_beta = tl.zeros((ROWS, WIDTH), tl.float32)
    of_bias = tl.zeros((ROWS, WIDTH), tl.float32)
    first = program * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        real = (row < rows)[:, None] & inside[None, :]
        place = row[:, None] * D + column[None, :]
        g = tl.zeros((ROWS, WIDTH), tl.float32)
        if HAS_WIDE:
            g += tl.load(g_wide + place, real, 0)
        if HAS_NARROW:
            g += tl.load(g_narrow + place, real, 0).to(tl.float32)
        z = tl.load(normalised + place, real, 0)
        scaled = g * weight
        mean, along = tl.sum(scaled, 1)[:, None] / D, tl.sum(scaled * z, 1)[:, None] / D
        back = (scaled - mean - z * along) * tl.load(rstd + row, row < rows, 0)[:, None]
        tl.store(g_x + place, back, real)
        if DROP:
            back = tl.where(_kept(seed, site, row, p, ROWS, WIDTH), back * scale, 0)
        tl.store(g_y + place, back, real)
        if SUMS:
            of_gamma += g * z
            of_beta += g
            of_bias += back
        first += programs * ROWS
    if SUMS:
        tl.store(sums + program * D + column, tl.sum(of_gamma, 0), inside)
        tl.store(sums + (programs + program) * D + column, tl.sum(of_beta, 0), inside)
        tl.store(sums + (2 * programs + program) * D + column, tl.sum(of_bias, 0), inside)


@triton.jit
def _normal(z):
    """P(Z <= z) for a standard normal Z, to 3e-7, and exp(-z^2 / 2): 7.1.26 of Abramowitz and Stegun, which takes a third of erf's time."""
    density = tl.exp(-0.5 * z * z)
    t = 1 / (1 + 0.2316418882663604 * tl.abs(z))
    tail = (
        t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))) * density
    )
    return tl.where(z >= 0, 1 - tail, tail), density


@triton.jit(do_not_specialize=["rows"])
def gelu(y, bias, out, rows, D: tl.constexpr, BLOCK: tl.constexpr, BIAS: tl.constexpr):
    """GELU(y + bias) of some elements."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = place < rows * D
    z = tl.load(y + place, real, 0).to(tl.float32)
    if BIAS:
        z += tl.load(bias + place % D, real, 0)
    below, _density = _normal(z)
    tl.store(out + place, z * below, real)


@triton.jit(do_not_specialize=["rows"])
def gelu_backward(
    g, y, bias, g_y, sums, rows,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BIAS: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The gradient of y in some columns, and the sums of some rows for that of bias: each program takes every n-th block of rows."""
    program, programs = tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    shift = tl.zeros((COLUMNS,), tl.float32)
    if BIAS:
        shift += tl.load(bias + column, inside, 0)
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    first = program * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        place = row[:, None] * D + column[None, :]
        real = (row[:, None] < rows) & inside[None, :]
        z = tl.load(y + place, real, 0).to(tl.float32) + shift[None, :]
        below, density = _normal(z)
        back = tl.load(g + place, real, 0).to(tl.float32) * (below + z * 0.3989422804014327 * density)
        tl.store(g_y + place, back, real)
        if SUMS:
            of_bias += back
        first += programs * ROWS
    if SUMS:
        tl.store(sums + program * D + column, tl.sum(of_bias, 0), inside)


@triton.jit(do_not_specialize=["rows"])
def column_sums(parts, out, rows, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums of some columns of (n, rows, D), (n, D), in fp32."""
    which = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    first = 0
    while first < rows:
        row = first + tl.arange(0, ROWS)
        place = (which * rows + row[:, None]) * D + column[None, :]
        sums += tl.load(parts + place, (row[:, None] < rows) & inside[None, :], 0)
        first += ROWS
    tl.store(out + which * D + column, tl.sum(sums, 0), inside)


@triton.jit(do_not_specialize=["sequences", "places"])
def places_backward(
    g, offsets, positions, segments, of_places, sequences, places,
    D: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of a gradient over the tokens at one place, for each of two segments, (2, places, D).

    The token at a place is as far from its sequence's first token as the places are apart. Filler sequences have place 0 throughout, and no
    gradient.
    """
    place = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first_segment = tl.zeros((BLOCK, COLUMNS), tl.float32)
    second_segment = tl.zeros((BLOCK, COLUMNS), tl.float32)
    n = 0
    while n < sequences:
        sequence = n + tl.arange(0, BLOCK)
        known = sequence < sequences
        first = tl.load(offsets + sequence, known, 0)
        end = tl.load(offsets + sequence + 1, known, 0)
        row = first + place - tl.load(positions + first, known & (first < end), 0)
        there = known & (row >= first) & (row < end)
        value = tl.load(g + row[:, None] * D + column[None, :], there[:, None] & (column < D)[None, :], 0)
        second = (tl.load(segments + row, there, 0) == 1)[:, None]
        first_segment += tl.where(second, 0, value)
        second_segment += tl.where(second, value, 0)
        n += BLOCK
    out = of_places + place * D + column
    tl.store(out, tl.sum(first_segment, 0), column < D)
    tl.store(out + places * D, tl.sum(second_segment, 0), column < D)
