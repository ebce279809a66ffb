"""The engine for CUDA in bf16. A training step is several hundred launches; replayed from a CUDA graph it is one.

A graph holds one step (forward, backward, update) for one task and one number of rows. It is recorded at the first such
batch. Recording changes no weight and no optimizer state: the optimizer's kernel skips the update of the warm-up step,
which loads kernels and makes the optimizer's state, and recording itself computes nothing. So it does not matter when a
graph is recorded, and a resumed run ends in the same bits.

Dropout inside a graph draws from CUDA's default generator, whose seed and offset torch passes to each replay: after
`model.reseed(seed, step)` the masks are a function of (seed, step). They differ from those of a step without a graph,
since they also depend on the number of rows.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtbert.data.batches import Batch
from mtbert.data.tokens import TokenStream
from mtbert.errors import out_of_memory
from mtbert.fast.cuda.choice import passes_for
from mtbert.fast.cuda.encoder import DeviceNoise, encode
from mtbert.fast.cuda.graphs import CudaRecorder, Recorder
from mtbert.fast.cuda.products import Products
from mtbert.fast.cuda.static import StaticBatch, rows_for
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss

Graph = tuple[StaticBatch, Callable[[], Tensor]]


class CudaEngine(Plain):
    """Attention without padding, dropout by CUDA's generator, merged adapters, fused passes, and steps replayed from CUDA graphs if
    `compute.graphs` is set.

    A batch that is not full, has more than `static.LARGEST` rows, or could not be recorded is launched kernel by
    kernel; the choice depends on the batch alone. A step does not wait for the device, except a joint one.
    """

    recorder: Callable[[torch.device], Recorder] = CudaRecorder
    passes_for = staticmethod(passes_for)

    def __init__(self, model: MultitaskModel, compute: Compute) -> None:
        super().__init__(model, compute)
        self._record = self.recorder(compute.device) if compute.graphs else None
        self._graphs: dict[tuple[str, int], Graph | None] = {}
        self._batch_size = 0
        config = model.encoder.config
        self._passes = self.passes_for(compute.device, config.hidden, config.intermediate, config.heads)
        self._products = Products(model.encoder, torch.bfloat16 if compute.bf16 else None, self._passes)
        _use_noise(model, DeviceNoise())

    @property
    def recorded(self) -> int:
        """The number of recorded graphs."""
        return sum(graph is not None for graph in self._graphs.values())

    def release(self) -> None:
        self._graphs.clear()
        _use_noise(self.model, Noise())

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        if not torch.is_autocast_enabled(self.compute.device.type):  # the attention kernels take bf16
            return super().encode(stream, first_only)
        return encode(self.model.encoder, stream, first_only, self._products, self._passes())

    def describe(self) -> dict[str, Any]:
        return {"kernels": self._passes.compiler} if self._passes.compiler else {}

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """As in `Plain`. Its settings must not change afterwards, since graphs hold their values, except rates that vary: those
        are tensors.
        """
        self._batch_size = recipe.batch_size * recipe.passes
        self._graphs.clear()
        if self._record is not None and recipe.sampler == "joint":
            print(
                "note: steps that hold a batch of every task run without CUDA graphs, which is slower", file=sys.stderr
            )
            self._record = None
        optimizer = super().optimizer(recipe)
        if recipe.optimization.varies:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=self.compute.device)
        return optimizer

    def step(self, batch: Batch, loss_of: Loss, seed: int, step: int) -> Tensor:
        graph = self._graph_of(batch, loss_of)
        self.model.reseed(seed, step, batch.share)  # after recording, since the warm-up draws masks too
        if graph is None:
            return self._update(batch.to(self.compute.device), loss_of)
        static, replay = graph
        static.fill(batch)
        return replay()

    def gradients(self, batch: Batch, loss_of: Loss) -> Tensor:
        with self._products.ready():
            return super().gradients(batch, loss_of)

    @contextmanager
    def inference(self) -> Iterator[None]:
        with super().inference(), self._products.ready():
            yield

    def _update(self, batch: Batch, loss_of: Loss, skip: bool = False) -> Tensor:
        """Forward, backward, update; with `skip` neither weights nor optimizer state change."""
        optimizer = self._optimizer
        assert optimizer is not None, "call optimizer() first"
        loss = self.backward(batch, loss_of)
        bad = torch.ones_like(loss) if skip else loss.isfinite().logical_not().float()
        optimizer.found_inf = bad  # type: ignore[attr-defined]  # the fused kernel skips the update if this is not zero
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def _graph_of(self, batch: Batch, loss_of: Loss) -> Graph | None:
        rows = rows_for(batch.stream.tokens)
        if self._record is None or rows is None or batch.labels is None or len(batch.labels) != self._batch_size:
            return None
        key = (batch.task, rows)
        if key not in self._graphs:
            longest: int = self.model.encoder.config.positions
            static = StaticBatch(batch, rows, longest, self.compute.device)
            static.fill(batch)
            work = partial(self._update, static.batch, loss_of)
            optimizer = self._optimizer
            assert optimizer is not None, "call optimizer() first"
            try:
                with _capturable(optimizer):
                    self._graphs[key] = static, self._record(partial(work, skip=True), work)
            except RuntimeError as error:
                # If the work fails, ending the recording fails too, with an error that hides the cause.
                cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                optimizer.zero_grad(set_to_none=True)  # they were recorded, but never computed
                if out_of_memory(cause):
                    raise cause from None
                if None not in self._graphs.values():
                    print(
                        f"note: {batch.task}: a step of {rows} rows cannot be recorded as a CUDA graph, so such steps are "
                        f"launched kernel by kernel, which is slower ({cause})",
                        file=sys.stderr,
                    )
                self._graphs[key] = None
        return self._graphs[key]


def _use_noise(model: MultitaskModel, noise: Noise) -> None:
    """Make all dropouts of the model draw from `noise`."""
    model.encoder.noise = noise
    for module in model.modules():
        if isinstance(module, Dropout):
            module.noise = noise


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Set `capturable`, which recording needs; outside a graph the optimizer would warn about it."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False
