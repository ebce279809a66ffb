"""The weights W' of all LoRA and DoRA layers at once, so that in a step an adapted layer costs one product, as without an adapter.

On a GPU the launches of small operations bound a step. By itself a DoRA layer takes some fifty in forward and backward; here all layers of
one shape share some thirty, and autograd derives the backward. The price is memory for W' and its gradient.

Shapes: N layers of one shape, each with O outputs, I inputs and rank r.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.dora import TINY, DoraLinear
from mtbert.peft.lora import LoraLinear

KINDS = (LoraLinear, DoraLinear)  # not classes derived from them, whose W' is another


class MergedWeights:
    """W' of a model's adapted layers, but of those with dropout in the adapter: they have no such weight in training.

    Args:
        model: the model.
        dtype: the type of products; by default that of the weights.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        groups: dict[object, list[LoraLinear]] = {}
        for layer in model.modules():
            if isinstance(layer, LoraLinear) and type(layer) in KINDS and layer.dropout.p == 0:
                norm = layer.exact_norm if isinstance(layer, DoraLinear) else None
                key = type(layer), layer.weight.shape, layer.lora_a.shape, layer.scale, norm
                groups.setdefault(key, []).append(layer)
        self._groups = [_Group(layers) for layers in groups.values()]
        self._dtype = dtype

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Compute W' from the current weights; within the context the layers multiply by it."""
        layers = [layer for group in self._groups for layer in group.layers]
        weights = [weight for group in self._groups for weight in group.merged(self._dtype)]
        for layer, weight in zip(layers, weights, strict=True):
            layer.forward = partial(F.linear, weight=weight, bias=layer.bias)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Of a plain layer, and of an adapted one whose W' is ready."""
    if type(linear) is nn.Linear:
        return linear.weight, linear.bias
    ready = linear.__dict__.get("forward")
    return None if ready is None else (ready.keywords["weight"], ready.keywords["bias"])


class _Group:
    """Adapted layers of one kind and shape. Their frozen weights are moved side by side, and the layers' parameters become views of them."""

    def __init__(self, layers: list[LoraLinear]) -> None:
        self.layers = layers
        self._weights_NOI: Tensor | None = None

    def merged(self, dtype: torch.dtype | None) -> tuple[Tensor, ...]:
        """W' of each layer, (O, I): W0 + s B A, by DoRA times m / ||W0 + s B A||."""
        a_NrI = torch.stack([layer.lora_a for layer in self.layers])
        sb_NOr = self.layers[0].scale * torch.stack([layer.lora_b for layer in self.layers])
        merged_NOI = torch.baddbmm(self._side_by_side(), sb_NOr, a_NrI)
        magnitudes: list[Tensor] = [layer.magnitude for layer in self.layers if isinstance(layer, DoraLinear)]
        if magnitudes:
            exact = all(layer.exact_norm for layer in self.layers if isinstance(layer, DoraLinear))
            norm_NO = torch.linalg.vector_norm(merged_NOI if exact else merged_NOI.detach(), dim=2).clamp_min(TINY)
            merged_NOI = (torch.stack(magnitudes) / norm_NO)[..., None] * merged_NOI
        return merged_NOI.to(dtype or merged_NOI.dtype).unbind()

    def _side_by_side(self) -> Tensor:
        """W0 of all layers, (N, O, I). Loading weights writes into it; other storage, as after `model.to`, is moved again."""
        weights_NOI = self._weights_NOI
        if weights_NOI is None or any(
            layer.weight.data_ptr() != weight.data_ptr() for layer, weight in zip(self.layers, weights_NOI, strict=True)
        ):
            self._weights_NOI = weights_NOI = torch.stack([layer.weight.detach() for layer in self.layers])
            for layer, weight in zip(self.layers, weights_NOI, strict=True):
                layer.weight.data = weight
        return weights_NOI
