"""The token embedding's gradient, of which a step changes only the rows that occur. Shapes: V rows, T tokens, D hidden."""

from typing import Any

import torch
from torch import Tensor


class TableGradient:
    """A table's dense gradient (V, D), kept from step to step, where only used rows change.

    A step uses some hundred of BERT's 30,522 rows, but a fresh dense gradient costs allocating and clearing all of them, as much
    as several layers. It serves `backward()` alone: `torch.autograd.grad` with respect to the table finds nothing.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._gradient: Tensor | None = None
        self._used: Tensor | None = None

    def lookup(self, ids: Tensor) -> Tensor:
        """(T,) ids to (T, D)."""
        if not (self.weight.requires_grad and torch.is_grad_enabled()):
            return self.weight.index_select(0, ids)
        rows: Tensor = _Lookup.apply(self.weight, ids, self)
        return rows

    def accumulate(self, ids: Tensor, grad_TD: Tensor) -> None:
        """Add the rows' gradients to `weight.grad`; rows of an earlier step are cleared first if it was reset to None."""
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
        """The rows, (n,) int64 and perhaps repeated, outside of which `weight.grad` is zero; None if it is not known."""
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
