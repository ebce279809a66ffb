"""Cached bf16 copies of fp32 weights, and the product with them. Shapes: O outputs, I inputs, T tokens."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class NarrowCopy:
    """bf16 copies of weights (O_n, I), concatenated along O.

    A copy is renewed when torch's counter of in-place changes to its weight (`_version`) has moved.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = tuple(weights)
        with torch.inference_mode(False):  # an inference tensor could not enter autograd later
            self._all = torch.empty(sum(map(len, weights)), weights[0].shape[1], dtype=torch.bfloat16)
        self._parts = self._all.split([len(weight) for weight in weights])
        self._seen = [-1] * len(weights)

    def holds(self, weights: Sequence[Tensor]) -> bool:
        """Whether this is the copy of exactly these weights."""
        return len(weights) == len(self._weights) and all(map(operator.is_, weights, self._weights))

    def current(self) -> Tensor:
        """All copies, (sum of O_n, I), bf16, renewed where needed."""
        for n, weight in enumerate(self._weights):
            version = -2 if weight.is_inference() else weight._version  # inference tensors have no counter
            if version < 0 or self._seen[n] != version:
                self._parts[n].data.copy_(weight.detach())
                self._seen[n] = version
        return self._all

    def of(self, weight: Tensor) -> Tensor:
        """One weight's copy, (O_n, I)."""
        return self._parts[self._place(weight)]

    def written(self, weight: Tensor) -> None:
        """Record that weight and copy were changed together, unseen by torch's counter."""
        torch.autograd.graph.increment_version(weight)
        self._seen[self._place(weight)] = weight._version

    def _place(self, weight: Tensor) -> int:
        return next(n for n, one in enumerate(self._weights) if one is weight)


class Copies:
    """A cache of the bf16 copies of a model's weights.

    torch's fused optimizers do not increment `_version`. Copies are therefore cached only when every change of a weight
    is known to be counted: after `trust`, or inside `unchanged`.
    """

    def __init__(self) -> None:
        self._trusted = False
        # By the weight's id; a copy holds its weights, so their ids are not reused.
        self._kept: dict[int, NarrowCopy] = {}

    def trust(self) -> None:
        """Cache copies from now on; code that changes a weight unseen by `_version` must call the copy's `written`."""
        self._kept.clear()  # weights may have changed uncounted since the copies were made
        self._trusted = True

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which no weight changes, so each copy is made once."""
        before = self._trusted
        if not before:
            self.trust()
        try:
            yield
        finally:
            self._trusted = before
            if not before:
                self._kept.clear()

    def kept(self, weight: Tensor) -> NarrowCopy | None:
        """The cached copy of a weight, which code that changes the weight must update; None if there is none."""
        return self._kept.get(id(weight))

    def of(self, weights: Sequence[Tensor]) -> Tensor:
        """The weights in bf16, concatenated along O, (sum of O_n, I)."""
        copy = self._kept.get(id(weights[0]))
        if copy is None or not copy.holds(weights):
            copy = NarrowCopy(weights)
            if self._trusted:
                self._kept |= {id(weight): copy for weight in weights}
        return copy.current()


class NarrowProduct(torch.autograd.Function):
    """x W^T, (T, O), of bf16 x (T, I) and the weights' copies; the weights' gradients are bf16 if `grad_dtype` allows it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, copies: Tensor, *weights: Tensor) -> Tensor:
        # The weights are saved so that the backward fails if they, and with them the copies, have changed.
        ctx.save_for_backward(x, *weights)
        ctx.copies, ctx.rows = copies, [len(weight) for weight in weights]
        return x @ copies.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *_ = ctx.saved_tensors
        grad_x = grad @ ctx.copies if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[2:]):
            return (grad_x, None, *(None for _ in ctx.rows))
        return (grad_x, None, *(grad.T @ x).split(ctx.rows))
