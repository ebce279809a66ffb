"""bf16 copies of fp32 weights, kept from step to step, and the product with them. Shapes: O outputs, I inputs, T tokens."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class NarrowCopy:
    """The bf16 copies of weights (O_n, I), one under the other.

    A copy follows its weight by torch's count of changes in place (`_version`).
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


class Copies:
    """The copies of a model's weights.

    torch's own fused optimizers do not count their changes. So copies outlive a product only where the weights are known to change
    in ways that torch counts: from `trust` on, or inside `unchanged`.
    """

    def __init__(self) -> None:
        self._trusted = False
        self._kept: dict[
            int, NarrowCopy
        ] = {}  # by the weight's id; the copy holds the weight, so that no other can take its id

    def trust(self) -> None:
        """From now on, whoever changes a weight past torch's count calls the copy's `written`."""
        self._kept.clear()  # a weight may have changed uncounted since its copy was made
        self._trusted = True

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, no weight changes: copies are made once."""
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
        """The kept copy that whoever changes the weight should write too."""
        return self._kept.get(id(weight))

    def of(self, weights: Sequence[Tensor]) -> Tensor:
        """The weights in bf16, one under the other, (sum of O_n, I)."""
        copy = self._kept.get(id(weights[0]))
        if copy is None or not copy.holds(weights):
            copy = NarrowCopy(weights)
            if self._trusted:
                self._kept |= {id(weight): copy for weight in weights}
        return copy.current()


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
