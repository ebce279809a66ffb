"""The inputs of heads (section 4.2): u, v, |u-v| and |u+v| of a pair's pooled sentences, and the cross-encoded c."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FEATURES: dict[str, Callable[[Mapping[str, "Tensor"]], "Tensor"]] = {
    "u": lambda pooled: pooled["u"],
    "v": lambda pooled: pooled["v"],
    "|u-v|": lambda pooled: (pooled["u"] - pooled["v"]).abs(),
    "|u+v|": lambda pooled: (pooled["u"] + pooled["v"]).abs(),
    "c": lambda pooled: pooled["c"],
}
