"""AdamW in one pass over memory."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbert.fast.cpu import build
from mtbert.fast.cpu.embedding import TableGradient
from mtbert.fast.cpu.narrow import Copies
from mtbert.training.engine import ADAMW


class AdamW(torch.optim.AdamW):
    """torch's AdamW with the same settings and state, computed by our kernel, for fp32 weights on the CPU.

    One pass updates the weights and their bf16 copies, from gradients in fp32 or bf16. It skips rows of the token
    embedding that never occurred, whose update is exactly zero.

    Args:
        groups: as for torch's AdamW.
        copies: the weights' bf16 copies, valid as long as only this optimizer changes the weights.
        table: the token embedding's gradient.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], copies: Copies, table: TableGradient) -> None:
        super().__init__(groups, **ADAMW)
        self._copies, self._table = copies, table
        # The table's first moment, to notice when it is replaced, and a boolean for each row of the table that has
        # occurred.
        self._seen: tuple[Tensor | None, np.ndarray] = None, np.empty(0)
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad_dtype = None  # accept any type
        copies.trust()

    # As in torch, but without the decorator that imports torch._dynamo, which takes a second of every process.
    add_param_group = torch.optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        assert set_to_none, "a weight without a gradient is not updated"
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            self._step(group)

    def _step(self, group: dict[str, Any]) -> None:
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            raise ValueError("the kernel has no weight_decay, amsgrad or maximize")
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
                }
        steps = [self.state[weight]["step"] for weight in weights]
        torch._foreach_add_(steps, 1)
        counts = set(map(int, torch.stack(steps).tolist()))
        for count in counts:  # one value, unless a weight had no gradient in some step
            chosen = [w for w, step in zip(weights, steps, strict=True) if len(counts) == 1 or step == count]
            self._update(group, chosen, count)

    def _update(self, group: dict[str, Any], weights: list[Tensor], count: int) -> None:
        beta1, beta2 = group["betas"]
        gradients = [weight.grad.contiguous() for weight in weights if weight.grad is not None]
        states = [self.state[weight] for weight in weights]
        copies = [self._copies.kept(weight) for weight in weights]
        rows = [self._rows(weight) for weight in weights]
        columns = [
            _pointers(weights),
            _pointers(gradients),
            np.array([gradient.dtype == torch.bfloat16 for gradient in gradients], np.int64),
            _pointers([state["exp_avg"] for state in states]),
            _pointers([state["exp_avg_sq"] for state in states]),
            _pointers(
                [None if copy is None else copy.of(weight) for weight, copy in zip(weights, copies, strict=True)]
            ),
            np.array([0 if row is None else row.ctypes.data for row in rows], np.int64),
            np.array([w.numel() if r is None else len(r) for w, r in zip(weights, rows, strict=True)], np.int64),
            np.array([weight.shape[-1] if weight.dim() else 1 for weight in weights], np.int64),
        ]
        build.library().adamw(
            len(weights),
            *(column.ctypes.data for column in columns),
            1 - beta1,  # in fp64: in fp32 1 - 0.999 has an error of 0.005%
            beta2,
            1 - beta2,
            group["eps"],
            group["lr"] / (1 - beta1**count),
            (1 - beta2**count) ** 0.5,
        )
        for weight, copy in zip(weights, copies, strict=True):
            if copy is None:
                torch.autograd.graph.increment_version(weight)
            else:
                copy.written(weight)

    def _rows(self, weight: Tensor) -> np.ndarray | None:
        """The rows of the table that have ever had a gradient; None for other weights."""
        if weight is not self._table.weight:
            return None
        if (used := self._table.used_rows()) is None:
            self._seen = None, np.empty(0)  # any row may have had a gradient
            return None
        mean, square = self.state[weight]["exp_avg"], self.state[weight]["exp_avg_sq"]
        moment, seen = self._seen
        if moment is not mean:  # the first step, also after a resume; the square of a tiny gradient may be zero
            seen = (mean.ne(0) | square.ne(0)).any(1).numpy()
            self._seen = mean, seen
        seen[used.numpy()] = True
        return np.flatnonzero(seen)


def _pointers(tensors: list[Any]) -> np.ndarray:
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors], np.int64)
