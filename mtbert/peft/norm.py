"""DoRA's norm ||W0 + s B A|| without forming B A, and what its gradient adds to A's and B's: by our kernels, else by torch.

Shapes: L layers of one shape side by side, each with O outputs, I inputs and rank r; `wide` is [W0 | s B] of all, (L O, I + L r), in
the type of products. `slope` is (W0 + s B A) A^T, half the gradient of the squared norm by s B.
"""

import torch
from torch import Tensor

from mtbert.kernels import build
from mtbert.model.fused import LANES, VARIANTS, call

# Below this a row of W0 + s B A counts as zero; its direction is then taken as zero too, never NaN.
TINY = 1e-12

Layers = tuple[Tensor, ...]  # a tensor of each layer


def row_norm(squared: Tensor, scaled_b: Tensor, cross: Tensor, slope: Tensor) -> Tensor:
    """||W0 + s B A|| of each row, (..., O), at least `TINY`: the root of ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T.

    That costs O I r products instead of O I (r + 1), and no (O, I) copy. Differentiable by all that it is given.

    Args:
        squared: ||w_i||^2, (..., O).
        scaled_b: s B, (..., O, r).
        cross, slope: W0 A^T and (W0 + s B A) A^T, (..., O, r).
    """
    return (squared + (scaled_b * (cross + slope)).sum(-1)).clamp_min(TINY**2).sqrt()


def norms(
    wide: Tensor, lora_a: Layers, lora_b: Layers, magnitude: Layers, squared: Layers, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The factor m / ||.|| of all layers, (L O,), and their norm and slope for `norms_backward`; outside of autograd."""
    (rank, inputs), outputs = lora_a[0].shape, len(lora_b[0])
    if not _fits(wide, lora_a, lora_b, magnitude):
        a, scaled_b = torch.stack(lora_a), scale * torch.stack(lora_b)
        cross = (_base(wide, lora_a) @ a.to(wide.dtype).mT).to(a.dtype)
        slope = cross + scaled_b @ (a @ a.mT)
        norm = row_norm(torch.stack(squared), scaled_b, cross, slope).flatten()
        return torch.cat(magnitude) / norm, norm, slope
    factor, norm = squared[0].new_empty(2, len(wide))
    slope = norm.new_empty(len(wide), -(-rank // LANES) * LANES)
    sizes = (len(lora_a), rank, inputs, outputs)
    call(
        "dora_norm", wide, wide, lora_a, lora_b, squared, magnitude, scale, TINY**2, *sizes, slope, norm, factor
    )  # fmt: skip
    return factor, norm, slope


def norms_backward(
    wide: Tensor,
    lora_a: Layers,
    lora_b: Layers,
    magnitude: Layers,
    scale: float,
    norm: Tensor,
    slope: Tensor,
    g_factor: Tensor,
    g_a: Tensor,
    g_scaled: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of A, (L, r, I), B, (L, O, r), and m, (L, O).

    Args:
        norm, slope: as `norms` gave them.
        g_factor: the gradient of the factor m / ||.||, (L O,).
        g_a, g_scaled: what does not come through the norm of the gradients of A, (L, r, I), and s B, (L, O, r), in the type of products.
    """
    layers, (rank, inputs), outputs = len(lora_a), lora_a[0].shape, len(lora_b[0])
    if not _fits(wide, lora_a, lora_b, magnitude):
        a, scaled_b = torch.stack(lora_a), scale * torch.stack(lora_b)
        size = norm.view(layers, outputs)
        g_m = g_factor.view(layers, outputs) / size
        # Half the gradient by the squared norm, which a row held at TINY does not pass on.
        half = torch.where(size > TINY, -g_m * torch.stack(magnitude) / size.square(), 0.0)[..., None]
        half_b = (half * scaled_b).mT
        through = (half_b.to(wide.dtype) @ _base(wide, lora_a)).to(a.dtype) + half_b @ scaled_b @ a
        return g_a + through, scale * (g_scaled + half * slope), g_m
    full_a = norm.new_empty(layers, rank, inputs)
    full_b, g_m = norm.new_empty(layers, outputs, rank), norm.new_empty(layers, outputs)
    sizes = (layers, rank, inputs, outputs)
    call(
        "dora_norm_backward", wide, wide, lora_a, lora_b, magnitude, scale, TINY, *sizes, norm, slope, g_factor, g_a,
        g_scaled, full_a, full_b, g_m,
    )  # fmt: skip
    return full_a, full_b, g_m


def _base(wide: Tensor, lora_a: Layers) -> Tensor:
    """W0 of each layer, (L, O, I)."""
    return wide.unflatten(0, (len(lora_a), -1))[..., : lora_a[0].shape[1]]


def _fits(wide: Tensor, lora_a: Layers, lora_b: Layers, others: Layers) -> bool:
    """Whether the kernels can take layers of these sizes and types, where they are."""
    return (
        wide.is_cpu
        and wide.dtype in VARIANTS
        and lora_a[0].dtype == torch.float32
        and lora_a[0].shape[1] % LANES == len(lora_b[0]) % LANES == 0
        and all(one.is_contiguous() for layers in (lora_a, lora_b, others) for one in layers)
        and build.available()
    )
