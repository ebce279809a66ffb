"""The weights W' of all LoRA and DoRA layers at once, so that in a step an adapted layer costs one product, as without an adapter.

On a GPU the launches of small operations bound a step. By itself a DoRA layer takes some fifty in forward and backward; here all layers
of one shape share some twenty of torch's operations, or three launches by `FusedMerge`. W' is kept in the type of products alone. torch's
operations form its fp32 sum W0 + s B A again in the backward, which needs it for DoRA only, so that DoRA keeps no more than LoRA except two
vectors for each layer.

Shapes: N layers of one shape, each with O outputs, I inputs and rank r.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtbert.peft.dora import TINY, DoraLinear
from mtbert.peft.lora import LoraLinear

KINDS = (LoraLinear, DoraLinear)  # not classes derived from them, whose W' is another


def kind(layer: nn.Module) -> object | None:
    """What layers must have in common to share a product; None if a layer must compute its own output.

    A layer with dropout in the adapter has no weight W' in training.
    """
    if type(layer) is nn.Linear:
        return nn.Linear, layer.weight.shape
    if not isinstance(layer, LoraLinear) or type(layer) not in KINDS or layer.dropout.p > 0:
        return None
    norm = layer.exact_norm if isinstance(layer, DoraLinear) else None
    return type(layer), layer.weight.shape, layer.lora_a.shape, layer.scale, norm


class MergedWeights:
    """W' of adapted layers.

    Args:
        units: layers of one kind that share a product; those that have no W' in training are left out.
        dtype: the type of products.
        merge: what forms W', where it takes the layers: `Merge` or `FusedMerge`.
    """

    def __init__(self, units: Iterable[tuple[nn.Module, ...]], dtype: torch.dtype, merge: "type[Merge]") -> None:
        groups: dict[object, list[Any]] = {}
        for unit in units:
            if isinstance(unit[0], KINDS) and kind(unit[0]) is not None:
                groups.setdefault(kind(unit[0]), []).append(unit)
        self._groups = [_Group(group, dtype, merge) for group in groups.values()]

    def weights(self) -> dict[tuple[nn.Module, ...], Tensor]:
        """W' of each unit's n layers by the current weights, (n O, I)."""
        return {unit: weight for group in self._groups for unit, weight in group.weights().items()}


class _Group:
    """Adapted layers of one kind. Their frozen weights are moved side by side, and the layers' parameters become views of them."""

    def __init__(self, units: Sequence[tuple[LoraLinear, ...]], dtype: torch.dtype, merge: "type[Merge]") -> None:
        self._units, self._dtype, self._merge = units, dtype, merge
        self._layers = [layer for unit in units for layer in unit]
        self._weights_NOI: Tensor | None = None

    def weights(self) -> dict[tuple[nn.Module, ...], Tensor]:
        """As from `MergedWeights`."""
        first, sizes = self._layers[0], [len(unit) for unit in self._units]
        parameters = [getattr(layer, name) for name in first.added for layer in self._layers]
        exact = isinstance(first, DoraLinear) and first.exact_norm
        merge = self._merge if self._merge.takes(first) else Merge
        # Under autocast, as in inference, W' would be formed in bf16, and metrics would use other weights than training.
        with torch.autocast(first.weight.device.type, enabled=False):
            merged = merge.apply(self._side_by_side(), first.scale, exact, self._dtype, sizes, *parameters)
        return dict(zip(self._units, merged, strict=True))

    def _side_by_side(self) -> Tensor:
        """W0 of all layers, (N, O, I). Loading weights writes into it; other storage, as after `model.to`, is moved again."""
        weights_NOI = self._weights_NOI
        if weights_NOI is None or any(
            layer.weight.data_ptr() != weight.data_ptr()
            for layer, weight in zip(self._layers, weights_NOI, strict=True)
        ):
            with torch.inference_mode(False):  # an inference tensor could not enter autograd later
                self._weights_NOI = weights_NOI = torch.stack([layer.weight.detach() for layer in self._layers])
                for layer, weight in zip(self._layers, weights_NOI, strict=True):
                    layer.weight.data = weight
        return weights_NOI


class Merge(torch.autograd.Function):
    """W' = f V with V = W0 + s B A; for LoRA f = 1, for DoRA f = m / ||V||, for each output."""

    @staticmethod
    def takes(layer: LoraLinear) -> bool:
        """Whether it can form W' of such layers."""
        return True

    @staticmethod
    def forward(
        ctx: Any,
        weights_NOI: Tensor,
        scale: float,
        exact: bool,
        dtype: torch.dtype,
        sizes: Sequence[int],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        """W' of units of n layers each, (n O, I).

        Args:
            weights_NOI: W0.
            scale: s.
            exact: differentiate the norm; otherwise it is a constant in the backward.
            dtype: of W'.
            sizes: n of each unit, N in all.
            parameters: A of all layers, then B, then with DoRA m.
        """
        count = len(weights_NOI)
        a_NrI, b_NOr, *magnitudes = (torch.stack(list(part)) for part in parts(parameters, count))
        sb_NOr = scale * b_NOr
        v_NOI, vectors = torch.baddbmm(weights_NOI, sb_NOr, a_NrI), []
        if magnitudes:
            norm_NO = torch.linalg.vector_norm(v_NOI, dim=2).clamp_min_(TINY)
            factor_NO = magnitudes[0] / norm_NO
            merged_NOI = torch.mul(v_NOI, factor_NO[..., None], out=torch.empty_like(v_NOI, dtype=dtype))
            vectors = [norm_NO, factor_NO]
        else:
            merged_NOI = v_NOI.to(dtype)
        ctx.save_for_backward(weights_NOI, sb_NOr, a_NrI, *vectors)
        ctx.scale, ctx.exact = scale, exact
        return tuple(unit.flatten(0, 1) for unit in merged_NOI.split(list(sizes)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """dm = u with u = G . V / ||V|| for each output, and dV = f (G - u V / ||V||), or f G if the norm is a constant."""
        weights_NOI, sb_NOr, a_NrI, *vectors = ctx.saved_tensors
        g_NOI = torch.cat(gradients).view(weights_NOI.shape)
        scaled_NOr, scale, of_m = sb_NOr, ctx.scale, ()
        if vectors:
            norm_NO, factor_NO = vectors
            # One fp32 matrix of W0's size at a time: a second one would be the peak of a small step.
            e_NOI = torch.baddbmm(weights_NOI, sb_NOr, a_NrI)
            u_NO = e_NOI.mul_(g_NOI).sum(2) / norm_NO
            scaled_NOr, scale, of_m = factor_NO[..., None] * sb_NOr, scale * factor_NO[..., None], u_NO.unbind()
        if vectors and ctx.exact:
            along_NO = torch.where(norm_NO > TINY, -u_NO / norm_NO, 0)  # below, the norm is the constant TINY
            torch.baddbmm(weights_NOI, sb_NOr, a_NrI, out=e_NOI).mul_(along_NO[..., None]).add_(g_NOI)
        else:
            e_NOI = g_NOI.to(weights_NOI.dtype)
        of_b = (e_NOI @ a_NrI.mT).mul_(scale)
        of_a = scaled_NOr.mT @ e_NOI
        return None, None, None, None, None, *of_a.unbind(), *of_b.unbind(), *of_m


def parts(tensors: Sequence[Tensor], size: int) -> list[Sequence[Tensor]]:
    """Groups of `size` tensors each, in their order."""
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]
