"""bf16 copies of fp32 weights, kept from step to step, and the product with them. Shapes: O outputs, I inputs, T tokens."""

import operator
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class NarrowCopy:
    """The bf16 copies of weights (O_n, I), one under the other.

    A copy follows its weight by the count that torch keeps of changes in place. torch's own fused optimizers do not count, so
    that copies outlive a step only where a keeper promises that nothing else changes the weights: see `keep` and `unchanged`.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = tuple(weights)
        with torch.inference_mode(False):  # an inference tensor could not enter autograd later
            self._all = torch.empty(sum(map(len, weights)), weights[0].shape[1], dtype=torch.bfloat16)
        self._parts = self._all.split([len(weight) for weight in weights])
        self._seen = [-1] * len(weights)

    def holds(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the weights."""
        return len(weights) == len(self._weights) and all(map(operator.is_, weights, self._weights))

    def current(self) -> Tensor:
        """All copies, (sum of O_n, I), bf16."""
        for n, weight in enumerate(self._weights):
            version = -2 if weight.is_inference() else weight._version  # torch does not count for inference tensors
            if version < 0 or self._seen[n] != version:
                self._parts[n].data.copy_(weight.detach())
                self._seen[n] = version
        return self._all

    def of(self, weight: Tensor) -> Tensor:
        """One weight's copy, (O_n, I)."""
        return self._parts[self._place(weight)]

    def written(self, weight: Tensor) -> None:
        """Weight and copy were changed together, past torch's count."""
        torch.autograd.graph.increment_version(weight)
        self._seen[self._place(weight)] = weight._version

    def _place(self, weight: Tensor) -> int:
        return next(n for n, one in enumerate(self._weights) if one is weight)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a pickled weight takes no copy along


class _Keeper(weakref.ref[Any]):
    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # nor a keeper


def keep(weights: Iterable[Tensor], keeper: object) -> None:
    """Let copies of these weights last as long as `keeper` does, which alone changes them, or in ways that torch counts."""
    for weight in weights:
        vars(weight).pop("bf16_copy", None)  # nobody may have watched the weight since it was made
        weight.bf16_keeper = _Keeper(keeper)  # type: ignore[attr-defined]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Inside, the model's weights do not change: copies are made once."""

    class Keeper: ...

    keeper, weights = Keeper(), [weight for weight in model.parameters() if not _kept(weight)]
    keep(weights, keeper)
    try:
        yield
    finally:
        for weight in weights:
            vars(weight).pop("bf16_copy", None)
            vars(weight).pop("bf16_keeper", None)


def narrow_copy(weight: Tensor) -> NarrowCopy | None:
    """The copy that a weight's keeper should write together with it, if there is one."""
    copy: NarrowCopy | None = vars(weight).get("bf16_copy")
    return copy


def narrow(weights: Sequence[Tensor]) -> Tensor:
    """The weights in bf16, one under the other, (sum of O_n, I): kept copies, or new ones."""
    if not all(map(_kept, weights)):
        return NarrowCopy(weights).current()
    known = narrow_copy(weights[0])
    if known is None or not known.holds(weights) or any(narrow_copy(weight) is not known for weight in weights):
        known = NarrowCopy(weights)
        for weight in weights:
            weight.bf16_copy = known  # type: ignore[attr-defined]
    return known.current()


def _kept(weight: Tensor) -> bool:
    keeper = vars(weight).get("bf16_keeper")
    return keeper is not None and keeper() is not None


class NarrowProduct(torch.autograd.Function):
    """x W^T, (T, O), of bf16 x (T, I) and the weights' copies; the weights' gradients stay bf16 where they are allowed to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, copies: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)  # so that torch refuses the backward if weights, and copies, have changed
        ctx.copies, ctx.rows = copies, [len(weight) for weight in weights]
        return x @ copies.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *_ = ctx.saved_tensors
        grad_x = grad @ ctx.copies if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[2:]):
            return (grad_x, None, *(None for _ in ctx.rows))
        return (grad_x, None, *(grad.T @ x).split(ctx.rows))
