"""`Passes` by Triton's kernels, one launch each; where a backward adds up rows for the gradients of parameters, it takes one more.

Dropout's masks are drawn again in the backward instead of being kept. They are a function of a seed, which each forward draws from the
device's default generator, of the pass's place in the forward, and of the element: so of (seed, step), whether a step is replayed or
launched.
"""

from typing import Any

import torch
import triton
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda import kernels
from mtbert.fast.cuda.attention import Attention
from mtbert.fast.cuda.fused_merge import FusedMerge
from mtbert.fast.cuda.mask import Mask, launch
from mtbert.fast.cuda.passes import Passes, Ragged, States
from mtbert.model.bert import Embeddings
from mtbert.model.dropout import Dropout

BLOCK = 1024  # elements of a program of GELU
ROWS, COLUMNS = 16, 128  # of a block in GELU's backward
NORM_ROWS = 2  # of a block in residual_norm
SUM_ROWS, SUM_COLUMNS = 128, 16  # of a block in column_sums
PARTS = 16  # a matrix is summed in this many parts, whose sums are then added up


class FusedPasses(Passes):
    """The passes of one forward."""

    adds_bias = True
    compiler = f"Triton {triton.__version__}"
    merge = FusedMerge

    def __init__(self) -> None:
        self._seed: Tensor | None = None
        self._site = 0

    @staticmethod
    def sums(matrix: Tensor, dtype: torch.dtype) -> Tensor:
        parts = PARTS if len(matrix) % PARTS == 0 else 1
        return _sums(_sums(matrix.contiguous().view(parts, len(matrix) // parts, matrix.shape[1]))[None])[0].to(dtype)

    def embed(self, embeddings: Embeddings, stream: TokenStream, ragged: Ragged) -> Tensor:
        position, segment = embeddings.position.weight, embeddings.segment.weight
        if len(segment) != 2:
            return super().embed(embeddings, stream, ragged)
        places_TD = Places.apply(position, segment, stream.positions, stream.segments, ragged.offsets)
        return embeddings.dropout(embeddings.norm(embeddings.token(stream.ids) + places_TD))

    def attention(self, qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: Dropout) -> Tensor:
        out: Tensor = Attention.apply(qkv_TE, ragged.offsets, heads, self._mask(dropout, qkv_TE.device))
        return out

    def residual_norm(
        self, x_TD: Tensor, y_TD: Tensor, bias: Tensor | None, norm: nn.LayerNorm, dropout: Dropout
    ) -> States:
        mask = self._mask(dropout, x_TD.device)
        return States(*ResidualNorm.apply(x_TD, y_TD, bias, norm.weight, norm.bias, norm.eps, mask))

    def gelu(self, y_TO: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = Gelu.apply(y_TO, bias)
        return out

    def _mask(self, dropout: Dropout, device: torch.device) -> Mask:
        """The next pass's mask."""
        p = dropout.p if dropout.training else 0.0
        if p and self._seed is None:
            self._seed = torch.randint(2**62, (1,), device=device)
        self._site += 1
        return Mask(self._seed, self._site, p)


class Places(torch.autograd.Function):
    """position[p] + segment[s], (T, D), for each token's place p in its sequence and its segment s."""

    @staticmethod
    def forward(
        ctx: Any, position: Tensor, segment: Tensor, positions: Tensor, segments: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(positions, segments, offsets)
        ctx.places = len(position)
        return position[positions] + segment[segments]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        positions, segments, offsets = ctx.saved_tensors
        width = grad.shape[1]
        parts = grad.new_empty(2, ctx.places, width)
        launch(
            kernels.places_backward, (ctx.places, -(-width // COLUMNS)), grad.contiguous(), offsets, positions, segments,
            parts, len(offsets) - 1, ctx.places, D=width, BLOCK=16, COLUMNS=COLUMNS,
        )  # fmt: skip
        return parts.sum(0), _sums(parts), None, None, None


class ResidualNorm(torch.autograd.Function):
    """LayerNorm(x + dropout(y + bias)), in x's and in y's type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor, eps: float, mask: Mask
    ) -> tuple[Tensor, Tensor]:
        rows, width = x.shape
        wide, normalised = torch.empty_like(x), torch.empty_like(x)
        narrow, rstd = torch.empty_like(y), x.new_empty(rows)
        sizes = {"D": width, "WIDTH": triton.next_power_of_2(width), "ROWS": NORM_ROWS, "DROP": mask.p > 0}
        launch(
            kernels.residual_norm, (-(-rows // NORM_ROWS),), x, y, bias, gamma, beta, *mask.arguments(), eps,
            wide, narrow, normalised, rstd, rows, BIAS=bias is not None, **sizes,
        )  # fmt: skip
        ctx.save_for_backward(normalised, rstd, gamma)
        ctx.mask, ctx.sizes, ctx.narrow = mask, sizes, y.dtype
        ctx.set_materialize_grads(False)
        return wide, narrow

    @staticmethod
    def backward(ctx: Any, g_wide: Tensor | None, g_narrow: Tensor | None) -> tuple[Tensor | None, ...]:
        normalised, rstd, gamma = ctx.saved_tensors
        rows, width = normalised.shape
        train = any(ctx.needs_input_grad[2:5])  # bias, gamma, beta
        programs = min(512, -(-rows // 4))  # enough for any GPU, and few enough for their sums to be small
        g_x, g_y = torch.empty_like(normalised), torch.empty_like(normalised, dtype=ctx.narrow)
        sums = normalised.new_empty(3, programs, width) if train else None
        launch(
            kernels.residual_norm_backward, (programs,), _dense(g_wide), _dense(g_narrow), normalised, rstd, gamma,
            *ctx.mask.arguments(), g_x, g_y, sums, rows,
            HAS_WIDE=g_wide is not None, HAS_NARROW=g_narrow is not None, SUMS=train, **ctx.sizes, num_warps=8,
        )  # fmt: skip
        of_gamma, of_beta, of_bias = (None, None, None) if sums is None else _sums(sums)
        return g_x, g_y, of_bias if ctx.needs_input_grad[2] else None, of_gamma, of_beta, None, None


class Gelu(torch.autograd.Function):
    """The exact GELU of y + bias, in y's type."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor | None) -> Tensor:
        rows, width = y.shape
        out = torch.empty_like(y)
        grid = (-(-y.numel() // BLOCK),)
        launch(kernels.gelu, grid, y, bias, out, rows, D=width, BLOCK=BLOCK, BIAS=bias is not None)
        ctx.save_for_backward(y, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        y, bias = ctx.saved_tensors
        rows, width = y.shape
        train: bool = ctx.needs_input_grad[1]
        programs = min(64, -(-rows // (2 * ROWS)))
        g_y, sums = torch.empty_like(y), y.new_empty(1, programs, width, dtype=torch.float32) if train else None
        launch(
            kernels.gelu_backward, (-(-width // COLUMNS), programs), grad.contiguous(), y, bias, g_y, sums, rows,
            D=width, ROWS=ROWS, COLUMNS=COLUMNS, BIAS=bias is not None, SUMS=train,
        )  # fmt: skip
        return g_y, None if sums is None else _sums(sums)[0]


def _sums(parts: Tensor) -> Tensor:
    """The sums over the second of three dimensions; torch takes two launches for them."""
    count, rows, width = parts.shape
    out = parts.new_empty(count, width, dtype=torch.float32)
    grid = -(-width // SUM_COLUMNS), count
    launch(kernels.column_sums, grid, parts, out, rows, D=width, ROWS=SUM_ROWS, COLUMNS=SUM_COLUMNS)
    return out


def _dense(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()
