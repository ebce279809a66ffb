"""The recorder of CUDA graphs: replays read the present values, and a failed recording leaves no trace in the process.

Without a GPU a stand-in takes torch's place: it keeps the state that torch keeps, and leaves it as torch 2.11 does when a recording fails.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.fast.cuda.graphs import CudaRecorder


class StandIn:
    """torch.cuda's current stream, memory pools that are recorded into, and the generator's flag."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream: Any = SimpleNamespace(name="default")
        self.pools, self.drawing_fails, self.handles = set[int](), False, 0
        self.recovers = True
        own = SimpleNamespace(
            name="recording", device_index=0, device=torch.device("cpu"), wait_stream=lambda _stream: None
        )
        self.stream.wait_stream = own.wait_stream
        fakes: dict[str, Any] = {
            "Stream": lambda _device: own,
            "graph_pool_handle": self.handle,
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None, reset=lambda: None),
            "current_stream": lambda: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
            "stream": self.on,
            "synchronize": lambda: None,
            "graph": self.record,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        end = lambda _device, pool: self.pools.discard(pool)  # noqa: E731
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)

    def handle(self) -> int:
        self.handles += 1
        return self.handles

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @contextmanager
    def record(self, _graph: Any, pool: int | None = None, stream: Any = None) -> Iterator[None]:
        pool = pool or self.handle()
        assert pool not in self.pools, "a pool takes one recording at a time"
        if self.drawing_fails and not self.recovers:
            raise RuntimeError("CUDA error: unspecified launch failure")
        before, self.stream = self.stream, stream
        self.pools.add(pool)
        self.drawing_fails = True
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.stream = before
        self.pools.discard(pool)
        self.drawing_fails = False


def test_torch_leaves_recording_state_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = StandIn(monkeypatch)
    before, record = cuda.stream, CudaRecorder(torch.device("cuda"))
    x = torch.ones(2)

    def fails() -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="a previous error during capture"):
            record(lambda: None, fails)
        assert cuda.stream is before and not cuda.pools and not cuda.drawing_fails
        assert torch.equal(record(lambda: None, lambda: x * 2)(), x * 2)
    cuda.recovers = False
    with pytest.raises(MtbertError, match=r"unspecified launch failure.*compute\.cuda_graphs: false"):
        record(lambda: None, fails)


# ---- what only a card can show


@pytest.fixture
def record() -> CudaRecorder:
    return CudaRecorder(torch.device("cuda"))


def drawn(seed: int) -> Tensor:
    torch.cuda.manual_seed(seed)
    return torch.rand(8, device="cuda")


@pytest.mark.gpu
def test_replays_use_the_same_memory_and_draw_new_numbers(record: CudaRecorder) -> None:
    x, total, warm = torch.ones(8, device="cuda"), torch.zeros(8, device="cuda"), []

    def work() -> Tensor:
        total.add_(x)
        return x * torch.rand(8, device="cuda")

    replay = record(lambda: warm.append(1), work)
    assert warm == [1] and not total.any(), "recording computes nothing"
    found = []
    for value in (2.0, 3.0):
        x.fill_(value)
        torch.cuda.manual_seed(1)
        found.append(replay())
    assert torch.equal(total, torch.full_like(total, 5.0))
    assert torch.allclose(found[1], found[0] * 1.5), "a result outlives the next replay"
    assert not torch.equal(replay(), found[1])


@pytest.mark.gpu
def test_a_failed_recording_leaves_no_trace(record: CudaRecorder) -> None:
    expected, stream = drawn(1), torch.cuda.current_stream()
    x = torch.ones(8, device="cuda")

    def doubled() -> Tensor:
        return x * 2

    def waiting() -> Tensor:
        return x * float(torch.rand(8, device="cuda").sum())

    def recorded(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return record(work, work)

    before = recorded(doubled)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            recorded(waiting)
        assert torch.cuda.current_stream() == stream
        assert torch.equal(drawn(1), expected)
        x.add_(1)
        for replay in (before, recorded(doubled)):
            assert torch.equal(replay(), x * 2)
