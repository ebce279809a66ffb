"""The products of several linear layers with one input, as one product where the layers' type allows it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.fast.cpu.adapters import Bases, adapted
from mtbert.fast.cpu.narrow import Copies, NarrowProduct
from mtbert.fast.cpu.passes import Product
from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear


class Products:
    """One product for several layers of one type. Layers of different types, or of a type not in `PRODUCTS`, are called one by one.

    Attributes:
        copies: bf16 copies of the weights of plain linear layers.
        bases: cached tensors of adapted layers.
    """

    def __init__(self) -> None:
        self.copies, self.bases = Copies(), Bases()

    def __call__(self, layers: Sequence[Any], x: Tensor) -> Product:
        """The outputs of layers of one shape for x (T, I), side by side."""
        types = {type(layer) for layer in layers}
        joint = PRODUCTS.get(types.pop()) if len(types) == 1 else None
        product = joint(self, layers, x) if joint else None
        return product or Product(_joined([layer(x) for layer in layers], dim=-1))


def _linear(products: Products, layers: Sequence[nn.Linear], x: Tensor) -> Product:
    weights = [layer.weight for layer in layers]
    bias = None if layers[0].bias is None else _joined([layer.bias for layer in layers])
    if x.dtype == torch.bfloat16:
        z: Tensor = NarrowProduct.apply(x, products.copies.of(weights), *weights)
        return Product(z, None, bias)
    return Product(F.linear(x, _joined(weights)), None, bias)


def _adapted(products: Products, layers: Sequence[LoraLinear], x: Tensor) -> Product | None:
    return adapted(layers, x, products.bases)


PRODUCTS: dict[type[nn.Module], Callable[..., Product | None]] = {
    nn.Linear: _linear,
    LoraLinear: _adapted,
    DoraLinear: _adapted,
}


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
