"""Recording work as CUDA graphs, each replayed as one launch on the same memory."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor


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
