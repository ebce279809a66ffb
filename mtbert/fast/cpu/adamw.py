"""AdamW with one pass over memory."""

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
    """torch's AdamW, its settings and its state, by our kernel, for fp32 weights on the CPU.

    One pass updates the weights, takes bf16 gradients as they come and renews the weights' bf16 copies; rows of the token
    embedding that never occurred are left out, since their update is exactly zero.

    Args:
        groups: as for torch's.
        copies: the weights' bf16 copies, which last as long as this optimizer alone changes the weights.
        table: the token embedding's gradient.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], copies: Copies, table: TableGradient) -> None:
        super().__init__(groups, **ADAMW)
        self._copies, self._table = copies, table
        # The state that `_met` is about, and as booleans the rows of the table that have occurred.
        self._met: tuple[Tensor | None, np.ndarray] = None, np.empty(0)
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad_dtype = None  # of whatever type it comes
        copies.trust()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            self._step(group)

    def _step(self, group: dict[str, Any]) -> None:
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            raise ValueError("the kernel knows neither weight_decay nor amsgrad nor maximize")
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
        for count in counts:  # one, unless some weight went without a gradient
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
            1 - beta1,  # in fp64: 1 - .999 in fp32 is 0.005% off
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
            self._met = None, np.empty(0)  # any row may have met a gradient now
            return None
        mean, square = self.state[weight]["exp_avg"], self.state[weight]["exp_avg_sq"]
        about, met = self._met
        if about is not mean:  # the first step, or the first after a resume; a tiny gradient's square may be zero
            met = (mean.ne(0) | square.ne(0)).any(1).numpy()
            self._met = mean, met
        met[used.numpy()] = True
        return np.flatnonzero(met)


def _pointers(tensors: list[Any]) -> np.ndarray:
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors], np.int64)
