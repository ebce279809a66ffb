"""Houlsby adapters: a bottleneck after each sublayer of a transformer layer (Houlsby et al. 2019, section 2.1).

Shapes: D hidden, I inputs of the sublayer's last linear layer, m bottleneck.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.bert import BertEncoder
from mtbert.model.dropout import Dropout

STD = 1e-2  # of the initial weights, cut off at two standard deviations: the adapter starts near the identity


class HoulsbyLinear(nn.Module):
    """h + W_up GELU(W_down h + b_down) + b_up, where h = dropout(W0 x + b0) is the sublayer's output before its residual sum.

    W0 (D, I) is frozen. W_down (m, D), b_down (m,), W_up (D, m) and b_up (D,) train. Dropout comes before the adapter, as in the
    authors' code.

    Args:
        base: the sublayer's last linear layer; its weight and bias are shared, not copied.
        size: m.
        dropout: the transformer layer's.
    """

    def __init__(self, base: nn.Linear, size: int, dropout: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.bias = base.bias
        self.down, self.up = nn.Linear(base.out_features, size), nn.Linear(size, base.out_features)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=STD, a=-2 * STD, b=2 * STD)
            nn.init.zeros_(linear.bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., D)."""
        h: Tensor = self.dropout(F.linear(x, self.weight, self.bias))
        return h + self.up(F.gelu(self.down(h)))


def insert(encoder: BertEncoder, size: int) -> None:
    """Put an adapter after the attention and the feed-forward network of each layer."""
    for layer in encoder.stack():
        dropout, layer.dropout = layer.dropout, Dropout(0.0, encoder.noise)  # it comes before the adapter
        for part, name in ((layer.attention, "output"), (layer.feed_forward, "down")):
            setattr(part, name, HoulsbyLinear(getattr(part, name), size, dropout))
