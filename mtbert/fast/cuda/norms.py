"""DoRA's norms of all layers at once: some thirty launches for each shape of weights, instead of as many for each layer.

Shapes: N layers of one shape, each with O outputs, I inputs and rank r.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtbert.peft.dora import TINY, DoraLinear


class Norms:
    """||W0 + s B A|| of a model's DoRA layers, as from `DoraLinear.norm`.

    The frozen weights of layers of one shape are moved side by side, and the layers' parameters become views of them, so that
    no memory is added.
    """

    def __init__(self, model: nn.Module) -> None:
        groups: dict[object, list[DoraLinear]] = {}
        for layer in model.modules():
            if isinstance(layer, DoraLinear):
                key = layer.weight.shape, layer.lora_a.shape, layer.scale, layer.exact_norm
                groups.setdefault(key, []).append(layer)
        self._groups = [_Group(layers) for layers in groups.values()]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Compute the norms of the current weights; within the context the layers use them."""
        layers = [layer for group in self._groups for layer in group.layers]
        norms = [norm for group in self._groups for norm in group.norms()]
        for layer, norm in zip(layers, norms, strict=True):
            layer.norm = lambda norm=norm: norm  # type: ignore[method-assign, misc]
        try:
            yield
        finally:
            for layer in layers:
                del layer.norm


class _Group:
    """DoRA layers of one shape, scale and kind of norm."""

    def __init__(self, layers: list[DoraLinear]) -> None:
        self.layers = layers
        self._weights_NOI: Tensor | None = None

    def norms(self) -> tuple[Tensor, ...]:
        """Of each layer, (O,), with a gradient to A and B unless the norm is a constant."""
        first, weights_NOI = self.layers[0], self._side_by_side()
        with torch.autocast(weights_NOI.device.type, enabled=False):
            a_NrI = torch.stack([layer.lora_a for layer in self.layers])
            sb_NOr = first.scale * torch.stack([layer.lora_b for layer in self.layers])
            if not first.exact_norm:
                a_NrI, sb_NOr = a_NrI.detach(), sb_NOr.detach()
            inner_NOr = torch.baddbmm(sb_NOr @ (a_NrI @ a_NrI.mT), weights_NOI, a_NrI.mT, alpha=2)
            squared_NO = torch.linalg.vector_norm(weights_NOI, dim=2).square() + (sb_NOr * inner_NOr).sum(2)
            return squared_NO.clamp_min(TINY**2).sqrt().unbind()

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
