"""What the encoder computes between products: bias, dropout, residual sum and LayerNorm; bias and GELU. Here by torch's operations;
`fused.py` does the same in one launch each. Shapes: T tokens, D hidden, O outputs of a layer.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout


class States(NamedTuple):
    """Hidden states (T, D) in two types.

    Attributes:
        wide: in fp32, for residual sums.
        narrow: in the type of products, for the next layer.
    """

    wide: Tensor
    narrow: Tensor


class Passes:
    """The passes of one forward through the encoder.

    Attributes:
        adds_bias: whether a pass adds a bias at no cost, so that products need not.
        compiler: what compiled the passes' kernels; empty if they are torch's own.
    """

    adds_bias = False
    compiler = ""

    def residual_norm(
        self, x_TD: Tensor, y_TD: Tensor, bias: Tensor | None, norm: nn.LayerNorm, dropout: Dropout
    ) -> States:
        """norm(x + dropout(y + bias))."""
        wide = norm(x_TD + dropout(y_TD if bias is None else y_TD + bias))
        return States(wide, wide.to(y_TD.dtype))

    def gelu(self, y_TO: Tensor, bias: Tensor | None) -> Tensor:
        """The exact (erf) GELU of y + bias, in y's type."""
        return F.gelu(y_TO if bias is None else y_TO + bias).to(y_TO.dtype)
