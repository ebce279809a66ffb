"""How many operations a training step on CUDA consists of, counted on a CPU; a small step is bound by their number.

The engine for CUDA runs with stand-ins for what a CPU lacks: attention kernels, products of bf16 with an fp32 result, and Triton's kernels,
each counted as one operation. Views and allocations are not counted. What torch does to many tensors at once (`_foreach_copy_`,
`_fused_adamw_`) counts as one operation too; on a card it takes some launches, and so do a few others, such as the gradient of an
embedding.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from benchmarks.adapters import adapted
from benchmarks.card import TOKENS, made_up
from benchmarks.work import LOSSES, multitask
from mtbert.data.batches import make_batch
from mtbert.fast.cuda import products
from mtbert.fast.cuda.encoder import DeviceNoise
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.fast.cuda.passes import Passes
from mtbert.model.bert import BertConfig, initialise
from mtbert.training.compute import Compute
from mtbert.training.recipe import Recipe

SMALL = BertConfig(vocabulary=30_522, positions=256, layers=12, hidden=64, heads=2, intermediate=128)
FREE = (
    "aten::empty",
    "aten::new_empty",
    "aten::detach",
    "aten::_unsafe_view",
    "aten::_local_scalar_dense",
    "aten::promote_types",
    "profiler::",
)


class Count(TorchDispatchMode):
    """Counts operations by name, but no views and allocations.

    Attributes:
        operations: how often each occurred.
        peak: the most bytes that what operations made, and is still in use, had at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.peak = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def see(self, outputs: Any) -> Any:
        """Note the memory of an operation's outputs; returns them."""
        for one in tree_leaves(outputs):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._made.values()))
        return outputs

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = function._schema.name
        if not function.is_view and not name.startswith(FREE):
            self.operations[name.removeprefix("aten::")] += 1
        return self.see(function(*arguments, **(keywords or {})))

    def as_one(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, counted as one operation."""

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.operations[name] += 1
            with _disable_current_modes():
                return self.see(work(*arguments, **keywords))

        return counted


class Attention(torch.autograd.Function):
    """A stand-in for the attention kernel of (T, 3 D): some (T, D), and some gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, count: Count) -> Tensor:
        ctx.count = count
        return count.as_one("attention", lambda: qkv[:, : qkv.shape[1] // 3].clone())()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.count.as_one("attention backward", lambda: grad.repeat(1, 3))(), None


@contextmanager
def counted(passes: type[Passes]) -> Iterator[Count]:
    """A context in which the engine for CUDA takes steps on a CPU by these passes, and their operations are counted.

    Triton's kernels are counted without being run, so the numbers that they would write are whatever was in memory.
    """
    count = Count()
    with ExitStack() as stack:
        stack.enter_context(patch.object(CudaEngine, "passes_for", lambda *_: passes))
        stack.enter_context(patch.object(passes, "attention", lambda _self, qkv, *_: Attention.apply(qkv, count)))
        stack.enter_context(patch.object(products, "product", count.as_one("mm", products.product)))
        drop = lambda _self, x, p, *_: torch.native_dropout(x, p, True)[0]  # noqa: E731
        stack.enter_context(patch.object(DeviceNoise, "drop", drop))
        if passes is not Passes:
            launch = count.as_one("Triton's kernel", lambda *_, **__: None)
            for kind in (passes, passes.merge):
                stack.enter_context(patch.object(sys.modules[kind.__module__], "launch", launch))
        stack.enter_context(count)
        yield count


def step_of(method: str, passes: type[Passes], config: BertConfig = SMALL, batch_size: int = 16) -> Count:
    """One step on Quora's pairs, u, v and c in one batch."""
    torch.manual_seed(0)
    model = multitask(config, ["u", "v", "c"], 0.1, lambda one: one.apply(initialise))
    if method != "full":
        model = adapted(model, method)
    data = made_up("quora", batch_size)
    batch = make_batch("quora", data, np.arange(batch_size), model.views("quora"), TOKENS)
    with counted(passes) as count:
        engine = model.train().engine = CudaEngine(model, Compute(torch.device("cpu"), bf16=True))
        engine.optimizer(Recipe("sequential", "depletion", 1, batch_size, 1e-5))
        for step in (1, 2):  # the first one makes the optimizer's state
            count.operations.clear()
            count.peak = 0
            engine.step(batch, LOSSES["quora"], 0, step)
    return count


def main(
    method: Annotated[str, typer.Option(help="list the operations of full, lora or dora")] = "",
    base: Annotated[
        bool, typer.Option(help="an encoder of BERT-base's size, for its memory; takes 3 GB and minutes")
    ] = False,
    batch_size: int = 16,
) -> None:
    """Operations of one step by full fine-tuning, LoRA and DoRA, with torch's operations between products, and with Triton's kernels; and
    the most memory beside the weights, which includes optimizer state and bf16 copies.
    """
    kinds: dict[str, type[Passes]] = {"torch": Passes}
    if find_spec("triton"):
        from mtbert.fast.cuda.fused import FusedPasses

        kinds["Triton"] = FusedPasses
    for name in [method] if method else ("full", "lora", "dora"):
        for by, passes in kinds.items():
            found = step_of(name, passes, BertConfig() if base else SMALL, batch_size)
            print(f"{found.operations.total():6,}  {found.peak / 1e6:8.1f} MB  {name}, {by}")
            for operation, times in found.operations.most_common() if method else ():
                print(f"{times:6,}    {operation}")


if __name__ == "__main__":
    typer.run(main)
