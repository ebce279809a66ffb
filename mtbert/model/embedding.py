"""The token embedding: a lookup whose gradient touches only the rows that occur. Shapes: V rows, T tokens, D hidden."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenEmbedding(nn.Embedding):
    """nn.Embedding whose dense gradient (V, D) is kept from step to step on the CPU, where only used rows change.

    A step uses some hundred of BERT's 30,522 rows, but a fresh dense gradient costs allocating and clearing all of them, as much
    as several layers. `backward()` is all it serves: `torch.autograd.grad` with respect to this weight finds nothing.
    """

    def __init__(self, rows: int, hidden: int) -> None:
        super().__init__(rows, hidden)
        self._gradient: Tensor | None = None
        self._used: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """(T,) ids to (T, D)."""
        if self.weight.device.type != "cpu" or not (self.weight.requires_grad and torch.is_grad_enabled()):
            return F.embedding(ids, self.weight)
        return _Lookup.apply(self.weight, ids, self)

    def accumulate(self, ids: Tensor, grad_TD: Tensor) -> None:
        """Add the rows' gradients to `weight.grad`; rows of an earlier step are cleared first if it was reset to None."""
        if self._gradient is None or self._gradient.dtype != self.weight.dtype:
            self._gradient, self._used = torch.zeros_like(self.weight), None
        if self.weight.grad is not self._gradient:
            if self._used is not None:
                self._gradient.index_fill_(0, self._used, 0.0)
            self._used = None
            if self.weight.grad is not None:
                self._gradient.copy_(self.weight.grad)
                self._used = torch.arange(len(self._gradient))
            self.weight.grad = self._gradient
        self._gradient.index_add_(0, ids, grad_TD.to(self.weight.dtype))
        self._used = ids if self._used is None else torch.cat((self._used, ids)).unique()

    def used_rows(self) -> Tensor | None:
        """The rows, (n,) int64 and perhaps repeated, outside of which `weight.grad` is zero; None if it is not known."""
        return self._used if self._gradient is not None and self.weight.grad is self._gradient else None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, owner: TokenEmbedding) -> Tensor:
        ctx.ids, ctx.owner = ids, owner
        return weight.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[None, None, None]:
        ctx.owner.accumulate(ctx.ids, grad_TD)
        return None, None, None
