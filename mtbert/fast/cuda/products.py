"""The products of the encoder's linear layers, in bf16, and their gradients, which are fp32 from the start.

Under autocast each weight is cast by an operation of its own, and so is its gradient. Here one operation copies all weights in a step,
and the product that makes a gradient writes it in the weight's type, so that no gradient is cast.

Shapes: T tokens, O outputs of a layer, I inputs; n layers that share an input and a product.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.fast.cuda.merged import MergedWeights, kind
from mtbert.fast.cuda.passes import Passes
from mtbert.model.bert import BertEncoder

Sums = Callable[[Tensor, torch.dtype], Tensor]
Layers = tuple[Any, ...]  # nn.Linear or adapted, that share an input and a product


class Factor(NamedTuple):
    """What x is multiplied by, and what the gradients go to.

    Attributes:
        weight: (n O, I), in the type of products, outside of autograd.
        bias: (n O,), likewise; None if another operation adds it.
        weights, biases: what the two are copies of; n O rows each, if any.
    """

    weight: Tensor
    bias: Tensor | None
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]


class Products:
    """The products of an encoder, with weights that are made anew for each step.

    Args:
        encoder: the encoder. Query, key and value are one product, if they are of one kind.
        dtype: the type of products; by default that of the weights.
        passes: what comes between the products. If these add the biases, only query's, key's and value's are added here.

    Attributes:
        dtype: the type of products.
    """

    def __init__(self, encoder: BertEncoder, dtype: torch.dtype | None, passes: type[Passes]) -> None:
        joint: list[Layers] = []
        single: list[Layers] = []
        for layer in encoder.stack():
            of_one_input = layer.attention.query, layer.attention.key, layer.attention.value
            joint += [of_one_input] if len(set(map(kind, of_one_input))) == 1 else [(one,) for one in of_one_input]
            single += [(one,) for one in (layer.attention.output, layer.feed_forward.up, layer.feed_forward.down)]
        self.dtype = dtype or encoder.embeddings.token.weight.dtype
        self._copies = copies = Copies(self.dtype)
        units = joint + single
        self._plain = {unit: copies.of([one.weight for one in unit]) for unit in units if type(unit[0]) is nn.Linear}
        self._biases = {
            unit: copies.of([one.bias for one in unit])
            for unit in (joint if passes.adds_bias else units)
            if kind(unit[0]) is not None
        }
        self._merged = MergedWeights([unit for unit in units if unit not in self._plain], self.dtype, passes.merge)
        self._factors: dict[Layers, Factor] = {}
        self._sums = passes.sums

    @contextmanager
    def ready(self) -> Iterator[None]:
        """A context for products with the current weights; no weight may change in it."""
        self._copies.renew()
        merged = {unit: (weight.detach(), [weight]) for unit, weight in self._merged.weights().items()}
        for unit, (weight, weights) in (self._plain | merged).items():
            bias, biases = self._biases.get(unit, (None, []))
            self._factors[unit] = Factor(weight, bias, weights, biases)
        try:
            yield
        finally:
            self._factors = {}

    def __call__(self, x: Tensor, *layers: Any) -> tuple[Tensor, Tensor | None]:
        """The layers' outputs for x (T, I) side by side, (T, n O), and a bias that is still to be added to them, or None.

        Layers that are not ready, such as those with dropout in the adapter, are called one by one.
        """
        if factor := self._factors.get(layers):
            weight, bias, weights, biases = factor
            product: Tensor = Product.apply(x, weight, bias, self._sums, len(weights), *weights, *biases)
            return product, layers[0].bias if bias is None else None
        if len(layers) == 1:
            return layers[0](x).to(self.dtype), None
        return torch.cat([self(x, layer)[0] for layer in layers], dim=-1), None


class Copies:
    """Copies of parameters, renewed all at once: on CUDA a few launches."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._parameters: list[Tensor] = []
        self._copies: list[Tensor] = []

    def of(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Memory for copies of these side by side, which `renew` fills, and the parameters themselves."""
        first = parameters[0]
        with torch.inference_mode(False):  # an inference tensor could not enter autograd later
            beside = torch.empty(sum(map(len, parameters)), *first.shape[1:], dtype=self._dtype, device=first.device)
        self._parameters += parameters
        self._copies += beside.split([len(one) for one in parameters])
        return beside, parameters

    @torch.no_grad()
    def renew(self) -> None:
        """Copy the current values."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._parameters)


class Product(torch.autograd.Function):
    """x W^T + bias, (T, n O), for x (T, I)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sums: Sums, count: int, *sources: Tensor
    ) -> Tensor:
        """Args:
        sums: adds up a matrix's rows.
        count: the first `count` sources get rows of W's gradient, the others those of the bias's, each in its own type.
        """
        ctx.save_for_backward(x, weight)
        ctx.sums, ctx.count, ctx.parts = sums, count, [(len(one), one.dtype) for one in sources]
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        count, parts, train = ctx.count, ctx.parts, ctx.needs_input_grad[5:]
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        of_weights: Sequence[Tensor | None] = [None] * count
        of_biases: Sequence[Tensor | None] = [None] * (len(parts) - count)
        if any(train[:count]):
            of_weights = product(grad.T, x, parts[0][1]).split([rows for rows, _ in parts[:count]])
        if any(train[count:]):
            of_biases = ctx.sums(grad, parts[-1][1]).split([rows for rows, _ in parts[count:]])
        return grad_x, None, None, None, None, *of_weights, *of_biases


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a b in another type, without rounding to their own in between."""
    if dtype == a.dtype:
        return a @ b
    return torch.mm(a, b, out_dtype=dtype) if a.is_cuda else a.to(dtype) @ b.to(dtype)
