"""`auto` resolved, and a missing device refused."""

from collections.abc import Iterator

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.training import compute as module
from mtbert.training.compute import resolve


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_cuda_where_there_is_none() -> None:
    assert resolve("auto", "fp32", "auto").device.type == "cpu"
    with pytest.raises(MtbertError, match=r"params\.yaml: compute\.device is cuda, but torch sees no CUDA device"):
        resolve("cuda", "fp32", "auto")


def test_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve("auto", "fp32", "auto").device.type == "cuda"
    assert resolve("cuda", "fp32", "auto").device.type == "cuda"
    assert resolve("cpu", "fp32", "auto").device.type == "cpu"


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_follows_the_processor(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_native_bf16", lambda _device: native)
    assert resolve("cpu", "auto", "auto").bf16 is native
    assert resolve("cpu", "bf16", "auto").bf16
    assert not resolve("cpu", "fp32", "auto").bf16


def test_threads() -> None:
    torch.set_num_threads(1)
    resolve("cpu", "fp32", "auto")
    assert torch.get_num_threads() == 1
    resolve("cpu", "fp32", 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_autocast_does_what_it_says(precision: str, dtype: torch.dtype) -> None:
    compute = resolve("cpu", precision, "auto")
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert compute.describe()["precision"] == precision
    assert compute.describe()["device"] == "cpu"
    assert compute.describe()["torch"] == torch.__version__
