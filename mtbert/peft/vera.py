"""VeRA: vector-based random matrix adaptation (Kopiczko et al. 2024). Shapes: O outputs, I inputs, r rank."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.peft.layer import AdaptedLinear


class SharedPair(nn.Module):
    """The random A (r, I) and B (O, r) of all layers, frozen.

    A layer takes as many columns of A as it has inputs, and as many rows of B as it has outputs. They follow from the run's seed, so no
    file holds them.

    Args:
        rank: r.
        inputs, outputs: I and O of the largest layers.
    """

    a: Tensor
    b: Tensor

    def __init__(self, rank: int, inputs: int, outputs: int) -> None:
        super().__init__()
        for name, shape in (("a", (rank, inputs)), ("b", (outputs, rank))):
            self.register_buffer(name, nn.init.kaiming_uniform_(torch.empty(shape)), persistent=False)


class VeraLinear(AdaptedLinear):
    """W' = W0 + diag(b) B diag(d) A, y = W' x + bias.

    W0 (O, I) is frozen, and so are A and B. The vectors d (r,) and b (O,) are trained. At the start b = 0, so that W' = W0.

    Args:
        base: as for `AdaptedLinear`.
        pair: A and B.
        d_initial: the initial value of d's elements.
    """

    added = ("d", "b")
    pair: SharedPair

    def __init__(self, base: nn.Linear, pair: SharedPair, d_initial: float) -> None:
        super().__init__(base)
        self.pair = pair
        self.d = nn.Parameter(torch.full((len(pair.a),), d_initial))
        self.b = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        base, (shared_a, shared_b) = F.linear(x, self.weight, self.bias), self.shared
        return base + (self.b * F.linear(self.d * F.linear(x, shared_a), shared_b)).to(base.dtype)

    @property
    def shared(self) -> tuple[Tensor, Tensor]:
        """A (r, I) and B (O, r) of this layer."""
        outputs, inputs = self.weight.shape
        return self.pair.a[:, :inputs], self.pair.b[:outputs]

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        shared_a, shared_b = self.shared
        return self.weight + (self.b[:, None] * shared_b) @ (self.d[:, None] * shared_a)
