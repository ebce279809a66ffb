"""The recorder of CUDA graphs: replays read the present values, and a failed recording leaves no trace in the process."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mtbert.fast.cuda.graphs import CudaRecorder

pytestmark = pytest.mark.gpu


@pytest.fixture
def record() -> CudaRecorder:
    return CudaRecorder(torch.device("cuda"))


def drawn(seed: int) -> Tensor:
    torch.cuda.manual_seed(seed)
    return torch.rand(8, device="cuda")


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


def test_a_failed_recording_leaves_no_trace(record: CudaRecorder) -> None:
    expected, stream = drawn(1), torch.cuda.current_stream()
    x = torch.ones(8, device="cuda")

    def doubled() -> Tensor:
        return x * 2

    def waiting() -> Tensor:
        return x * float(doubled().sum())

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
