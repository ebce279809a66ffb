"""Training steps replayed from CUDA graphs: some thousand launches become one.

A graph holds one step (forward, backward, update) for one task and one number of rows. It is recorded when the first such batch
comes, and recording leaves everything as it was: the steps run before it, to load kernels and make the optimizer's state, have their
update left out by the optimizer's own kernel, and recording itself computes nothing. So it does not matter when a graph is recorded,
and a resumed run ends in the same bits.

Dropout inside a graph draws from CUDA's default generator, whose seed and offset torch hands over at each replay: after
`model.reseed(seed, step)` the masks are a function of (seed, step). They are others than those of a step without a graph, since
they depend on the number of rows too.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from mtbert.data.batches import Batch
from mtbert.data.static import StaticBatch, rows_for
from mtbert.errors import out_of_memory
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.step import Loss, naming_batch_size, train_step, update


class Recorder(Protocol):
    """Records functions of no argument, each to be replayed on the same memory as often as wanted."""

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run `warm_up`, record `work`; what is returned replays it and gives a copy of its result."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory: they are replayed one after another, and only results outlive a replay."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        # On the stream that records: cuBLAS keeps a workspace for each.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            warm_up()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                result = work()
        except BaseException:
            # Where ending the recording fails, torch leaves the stream, the allocator and the generator as if it went on.
            torch.cuda.set_stream(before)
            self._forget(graph)
            raise

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # before another graph of the pool writes there

        return replay

    def _forget(self, graph: torch.cuda.CUDAGraph) -> None:
        """Put the process in order after a recording that failed; graphs recorded before stay what they are."""
        torch.cuda.synchronize()
        with suppress(RuntimeError):  # where it was ended after all
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
        self._pool = torch.cuda.graph_pool_handle()
        graph.reset()
        # The end of any recording takes CUDA's generator out of its recording state.
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream):
            torch.zeros((), device=self._stream.device)


# By device; a device that is not named takes its steps one launch at a time.
RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}


class Steps:
    """Training steps one after another: replayed from graphs where `compute.graphs` asks for it and the batch's shape is static.

    Otherwise, or for a batch that is not full or has more than `static.LARGEST` rows, or of a kind that could not be recorded, they
    are taken as `train_step` takes them; which of the two depends on the batch alone.

    Args:
        model, optimizer: what is trained, in place; the optimizer's settings must not change any more.
        losses: loss by task.
        batch_size: examples of a full batch.
        longest: tokens of the longest sequence, as the wrapper cuts it.
    """

    def __init__(
        self,
        model: MultitaskModel,
        optimizer: torch.optim.Optimizer,
        losses: Mapping[str, Loss],
        compute: Compute,
        batch_size: int,
        longest: int,
    ) -> None:
        self._model, self._optimizer, self._losses, self._compute = model, optimizer, losses, compute
        self._batch_size, self._longest = batch_size, longest
        make = RECORDERS.get(compute.device.type) if compute.graphs else None
        self._record = make(compute.device) if make else None
        self._graphs: dict[tuple[str, int], tuple[StaticBatch, Callable[[], Tensor]] | None] = {}

    @property
    def recorded(self) -> int:
        """How many graphs there are."""
        return sum(graph is not None for graph in self._graphs.values())

    def take(self, batch: Batch, seed: int, step: int) -> Tensor:
        """Take step number `step` on a batch that lies on the host; its mean loss, (), still on the device.

        Raises:
            MtbertError: memory ran out.
        """
        where = f"step {step} ({batch.task})"
        with naming_batch_size(self._compute, where):
            graph = self._graph_of(batch)
        self._model.reseed(seed, step)  # after a recording, whose warm-up draws masks too
        if graph is None:
            loss_of = self._losses[batch.task]
            return train_step(
                self._model, self._optimizer, batch.to(self._compute.device), loss_of, self._compute, where
            )
        static, replay = graph
        static.fill(batch)
        return replay()

    def _graph_of(self, batch: Batch) -> tuple[StaticBatch, Callable[[], Tensor]] | None:
        rows = rows_for(batch.stream.tokens)
        if self._record is None or rows is None or batch.labels is None or len(batch.labels) != self._batch_size:
            return None
        key = (batch.task, rows)
        if key not in self._graphs:
            static = StaticBatch(batch, rows, self._longest, self._compute.device)
            static.fill(batch)
            loss_of = self._losses[batch.task]
            work = partial(update, self._model, self._optimizer, static.batch, loss_of, self._compute)
            try:
                with _capturable(self._optimizer):
                    self._graphs[key] = static, self._record(partial(work, leave_out=True), work)
            except RuntimeError as error:
                # Where the work fails, ending the recording fails too, and only says that something did before.
                cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                self._optimizer.zero_grad(set_to_none=True)  # recorded, but never computed
                if out_of_memory(cause):
                    raise cause from None
                if None not in self._graphs.values():
                    print(
                        f"note: {batch.task}: a step of {rows} rows cannot be recorded as a CUDA graph, so that such steps are "
                        f"launched kernel by kernel, more slowly ({cause})",
                        file=sys.stderr,
                    )
                self._graphs[key] = None
        return self._graphs[key]


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The optimizer's leave to be recorded. A fused one computes the same either way, but warns when it runs so unrecorded."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False
