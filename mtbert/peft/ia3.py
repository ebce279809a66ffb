"""(IA)³: infused adapter by inhibiting and amplifying inner activations (Liu et al. 2022). Shapes: O outputs, I inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.layer import AdaptedLinear


class Ia3Linear(AdaptedLinear):
    """y = l (W0 x + bias), or, with l on the input, y = W0 (l x) + bias; products with l are by element.

    W0 (O, I) is frozen. l, (O,) or (I,), is trained and starts as one. In a transformer layer l scales the keys, the values, and what the
    second layer of the feed-forward network reads.

    Args:
        base: as for `AdaptedLinear`.
        on_input: whether l scales the input.
    """

    added = ("factor",)

    def __init__(self, base: nn.Linear, on_input: bool) -> None:
        super().__init__(base)
        self.factor = nn.Parameter(torch.ones(base.in_features if on_input else base.out_features))
        self.on_input = on_input

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        if self.on_input:
            return F.linear(self.factor * x, self.weight, self.bias)
        y = F.linear(x, self.weight, self.bias)
        return (self.factor * y).to(y.dtype)

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        return self.weight * (self.factor if self.on_input else self.factor[:, None])

    def merged_bias(self) -> Tensor | None:
        """The bias that goes with W', (O,): scaled with the output."""
        return self.bias if self.on_input or self.bias is None else self.factor * self.bias
