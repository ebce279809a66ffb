"""How many operations a training step on CUDA consists of, counted on a CPU; a small step is bound by their number.

The engine for CUDA runs with stand-ins for what a CPU lacks: flash attention, products of bf16 with an fp32 result, and Triton's kernels, each
counted as one operation. Views and allocations are not counted. What torch does to many tensors at once (`_foreach_copy_`,
`_fused_adamw_`) counts as one operation too; on a card it takes some launches, and so do a few others, such as the gradient of an embedding.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from benchmarks.adapters import adapted
from benchmarks.card import TOKENS, made_up
from benchmarks.work import LOSSES, multitask
from mtbert.data.batches import make_batch
from mtbert.fast.cuda import encoder, products
from mtbert.fast.cuda.encoder import DeviceNoise
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.model.bert import BertConfig, initialise
from mtbert.training.compute import Compute
from mtbert.training.recipe import Recipe

SMALL = BertConfig(vocabulary=30_522, positions=256, layers=12, hidden=64, heads=2, intermediate=128)
FREE = (
    "aten::empty",
    "aten::detach",
    "aten::_unsafe_view",
    "aten::_local_scalar_dense",
    "aten::promote_types",
    "profiler::",
)


class Count(TorchDispatchMode):
    """Counts operations by name, but no views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = function._schema.name
        if not function.is_view and not name.startswith(FREE):
            self.operations[name.removeprefix("aten::")] += 1
        return function(*arguments, **(keywords or {}))

    def as_one(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, counted as one operation."""

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.operations[name] += 1
            with _disable_current_modes():
                return work(*arguments, **keywords)

        return counted


class Attention(torch.autograd.Function):
    """A stand-in for flash attention of (T, 3 D): some (T, D), and some gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, count: Count) -> Tensor:
        ctx.count = count
        return count.as_one("flash attention", lambda: qkv[:, : qkv.shape[1] // 3].clone())()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.count.as_one("flash attention backward", lambda: grad.repeat(1, 3))(), None


@contextmanager
def counted() -> Iterator[Count]:
    """A context in which the engine for CUDA takes steps on a CPU, and their operations are counted."""
    count = Count()
    with (
        patch.object(encoder, "flash_attention", lambda qkv, *_: Attention.apply(qkv, count)),
        patch.object(products, "product", count.as_one("mm", products.product)),
        patch.object(DeviceNoise, "drop", lambda _self, x, p, *_: torch.native_dropout(x, p, True)[0]),
        count,
    ):
        yield count


def operations(method: str, batch_size: int = 16) -> Counter[str]:
    """The operations of one step on Quora's pairs, u, v and c in one batch, of an encoder with 12 layers."""
    torch.manual_seed(0)
    model = multitask(SMALL, ["u", "v", "c"], 0.1, lambda one: one.apply(initialise))
    if method != "full":
        model = adapted(model, method)
    engine = model.train().engine = CudaEngine(model, Compute(torch.device("cpu"), bf16=True))
    engine.optimizer(Recipe("sequential", "depletion", 1, batch_size, 1e-5))
    data = made_up("quora", batch_size)
    batch = make_batch("quora", data, np.arange(batch_size), model.views("quora"), TOKENS)
    with counted() as count:
        for step in (1, 2):  # the first one makes the optimizer's state
            count.operations.clear()
            engine.step(batch, LOSSES["quora"], 0, step)
    return count.operations


def main(method: Annotated[str, typer.Option(help="also list the operations of full, lora or dora")] = "") -> None:
    """Operations of one step by full fine-tuning, LoRA and DoRA."""
    for name in ("full", "lora", "dora"):
        found = operations(name)
        print(f"{found.total():6,}  {name}")
        if name == method:
            for operation, times in found.most_common():
                print(f"{times:6,}    {operation}")


if __name__ == "__main__":
    typer.run(main)
