"""Record work as CUDA graphs. A graph is replayed as one launch, on the same memory."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor


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
            # If ending the recording fails, torch leaves the stream, the allocator and the generator in recording
            # state.
            torch.cuda.set_stream(before)
            self._forget(graph)
            raise

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # before another graph of the pool overwrites it

        return replay

    def _forget(self, graph: torch.cuda.CUDAGraph) -> None:
        """Reset torch's state after a failed recording; earlier graphs stay valid."""
        torch.cuda.synchronize()
        with suppress(RuntimeError):  # it was ended after all
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
        self._pool = torch.cuda.graph_pool_handle()
        graph.reset()
        # Ending another recording takes CUDA's generator out of recording state.
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream):
            torch.zeros((), device=self._stream.device)
