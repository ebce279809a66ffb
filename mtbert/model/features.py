"""What a pair's head looks at (section 4.2): a concatenation of u, v, |u-v|, |u+v| and the cross-encoded c."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

FEATURES: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "u": lambda pooled: pooled["u"],
    "v": lambda pooled: pooled["v"],
    "|u-v|": lambda pooled: (pooled["u"] - pooled["v"]).abs(),
    "|u+v|": lambda pooled: (pooled["u"] + pooled["v"]).abs(),
    "c": lambda pooled: pooled["c"],
}


def concatenate(features: Sequence[str], pooled: Mapping[str, Tensor]) -> Tensor:
    """The named features side by side, (B, F) with F = D * len(features), from the pooled views u, v, c, (B, D) each."""
    return torch.cat([FEATURES[feature](pooled) for feature in features], dim=-1)
