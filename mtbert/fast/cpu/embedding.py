"""The token embedding's gradient, updated only in rows that occur. Shapes: V rows, T tokens, D hidden."""

from typing import Any

import torch
from torch import Tensor


class TableGradient:
    """A table's dense gradient (V, D), reused in every step; only rows that occur are changed.

    A step uses several hundred of BERT's 30,522 rows, but allocating and clearing a new dense gradient costs as much as
    several layers. It works with `backward()` only: `torch.autograd.grad` with respect to the table finds nothing.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._gradient: Tensor | None = None
        self._used: Tensor | None = None

    def lookup(self, ids: Tensor) -> Tensor:
        """The rows of ids (T,), (T, D)."""
        if not (self.weight.requires_grad and torch.is_grad_enabled()):
            return self.weight.index_select(0, ids)
        rows: Tensor = _Lookup.apply(self.weight, ids, self)
        return rows

    def accumulate(self, ids: Tensor, grad_TD: Tensor) -> None:
        """Add gradients of rows to `weight.grad`. If it was reset to None, the rows of earlier steps are cleared first."""
        if self._gradient is None:
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
        """The rows where `weight.grad` may not be zero, (n,) int64, perhaps repeated; None if unknown."""
        return self._used if self._gradient is not None and self.weight.grad is self._gradient else None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, table: TableGradient) -> Tensor:
        ctx.ids, ctx.table = ids, table
        return weight.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[None, None, None]:
        ctx.table.accumulate(ctx.ids, grad_TD)
        return None, None, None
