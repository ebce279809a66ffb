"""The optimizer: AdamW, and on the CPU with one pass over memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.kernels import build
from mtbert.model.embedding import TokenEmbedding
from mtbert.model.narrow import keep, narrow_copy
from mtbert.peft.convert import ADAPTER_PARAMETERS


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW with betas .9/.999, eps 1e-6 and no weight decay, the course's defaults (NOTES), and its state.

    With our kernels one pass updates the weights, takes bf16 gradients as they come and renews the weights' bf16 copies; rows of
    the token embedding that never occurred are left out, since their update is exactly zero.

    Args:
        model: what to train: all its parameters that require a gradient.
        learning_rate: without schedule.
        adapter_learning_rate: that of an adapter's own parameters, which then form a second group; None: the same for all.
    """

    def __init__(self, model: nn.Module, learning_rate: float, adapter_learning_rate: float | None = None) -> None:
        adapter_rate = learning_rate if adapter_learning_rate is None else adapter_learning_rate
        rates: dict[float, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rate = adapter_rate if name.endswith(ADAPTER_PARAMETERS) else learning_rate
                rates.setdefault(rate, []).append(parameter)
        groups = [{"params": parameters, "lr": rate} for rate, parameters in rates.items()]
        super().__init__(groups, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, fused=True)
        trained = [parameter for parameters in rates.values() for parameter in parameters]
        self.found_inf: Tensor | None = None
        self._kernel = build.available() and all(p.is_cpu and p.dtype == torch.float32 for p in trained)
        self._tables = {id(m.weight): m for m in model.modules() if isinstance(m, TokenEmbedding)}
        # By table: the state that it is about, and as booleans the rows that have occurred.
        self._met: dict[int, tuple[Tensor, np.ndarray]] = {}
        if self._kernel:
            for weight in trained:
                weight.grad_dtype = None  # of whatever type it comes
            keep(trained, self)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient; none of them where `found_inf` is set and not zero."""
        if not self._kernel:
            super().step()
            return
        if self.found_inf is not None and self.found_inf.item():
            return
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
        copies = [narrow_copy(weight) for weight in weights]
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
        """The rows of a table that have ever had a gradient; None for other weights."""
        table = self._tables.get(id(weight))
        if table is None or (used := table.used_rows()) is None:
            self._met.pop(id(weight), None)  # any row may have met a gradient now
            return None
        mean, square = self.state[weight]["exp_avg"], self.state[weight]["exp_avg_sq"]
        about, met = self._met.get(id(weight), (None, np.empty(0)))
        if about is not mean:  # the first step, or the first after a resume; a tiny gradient's square may be zero
            met = (mean.ne(0) | square.ne(0)).any(1).numpy()
            self._met[id(weight)] = mean, met
        met[used.numpy()] = True
        return np.flatnonzero(met)


def _pointers(tensors: list[Any]) -> np.ndarray:
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors], np.int64)
