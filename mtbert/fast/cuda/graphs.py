"""Record work as CUDA graphs. A graph is replayed as one launch, on the same memory."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from mtbert.errors import MtbertError

FAILED: list[torch.cuda.CUDAGraph] = []  # kept, since torch's allocator of pinned memory may hold pointers to them


class Recorder(Protocol):
    """Records functions without arguments, to be replayed on the same memory."""

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run `warm_up` and record `work`. Returns a function that replays it and returns a copy of its result."""


class CudaRecorder:
    """CUDA graphs that share one memory pool, since they are replayed one after another and only results outlive a replay."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """As `Recorder`. After a failure, work that is launched and graphs that were recorded run as before.

        Raises:
            MtbertError: recording failed, and torch could not be taken out of recording state.
        """
        # On the recording stream, since cuBLAS has a workspace for each stream.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            warm_up()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                result = work()
        except BaseException:
            torch.cuda.set_stream(before)
            self._recover(graph)
            raise

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # before another graph of the pool overwrites it

        return replay

    def _recover(self, failed: torch.cuda.CUDAGraph) -> None:
        """Undo what torch leaves to its caller if ending a recording fails: allocator and generator are still in recording state."""
        try:
            torch.cuda.synchronize()
            with suppress(RuntimeError):  # it was ended after all
                torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
            self._pool = torch.cuda.graph_pool_handle()
            failed.reset()
            FAILED.append(failed)
            # In torch 2.11 the generator has one flag for all recordings. Until the end of another one clears it, whatever
            # draws random numbers outside of a graph fails.
            with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream):
                torch.zeros((), device=self._stream.device)
        except RuntimeError as error:
            raise MtbertError(
                f"CUDA cannot go on after a step could not be recorded as a graph ({error}); set compute.cuda_graphs: false in "
                "params.yaml, then run the same command again"
            ) from error
