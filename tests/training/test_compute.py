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
def test_cuda_without_a_device() -> None:
    assert resolve("auto", "fp32", "auto").device.type == "cpu"
    with pytest.raises(MtbertError, match=r"params\.yaml: compute\.device is cuda, but torch sees no CUDA device"):
        resolve("cuda", "fp32", "auto")


def test_cuda_with_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve("auto", "fp32", "auto").device.type == "cuda"
    assert resolve("cuda", "fp32", "auto").device.type == "cuda"
    assert resolve("cpu", "fp32", "auto").device.type == "cpu"


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_follows_the_processor(
    native: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_native_bf16", lambda _device: native)
    module._note.cache_clear()
    assert resolve("cpu", "auto", "auto").bf16 is native
    assert not resolve("cpu", "fp32", "auto").bf16
    assert not capsys.readouterr().err
    assert resolve("cpu", "bf16", "auto").bf16
    assert ("bf16 is several times as slow as fp32 here" in capsys.readouterr().err) is not native


def test_graphs_are_for_cuda_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the setting has no effect, and records do not mention it."""
    described = resolve("cpu", "fp32", "auto").describe()
    assert not resolve("cpu", "fp32", "auto", cuda_graphs=True).graphs
    assert resolve("cpu", "fp32", "auto", cuda_graphs=True).describe() == described
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a card")
    monkeypatch.setattr(module, "_native_bf16", lambda _device: True)
    assert not resolve("cuda", "bf16", "auto").graphs
    assert "cuda_graphs" not in resolve("cuda", "bf16", "auto").describe()
    asked = resolve("cuda", "bf16", "auto", cuda_graphs=True)
    assert asked.graphs and asked.describe()["cuda_graphs"] is True
    assert resolve("cuda", "bf16", "auto", cuda_graphs="auto").graphs
    assert not resolve("cuda", "fp32", "auto", cuda_graphs="auto").graphs
    with pytest.raises(MtbertError, match=r"compute\.cuda_graphs needs bf16; set compute\.precision: bf16"):
        resolve("cuda", "fp32", "auto", cuda_graphs=True)
    monkeypatch.setattr(module, "_native_bf16", lambda _device: False)
    assert not resolve("cuda", "auto", "auto", cuda_graphs="auto").bf16
    with pytest.raises(
        MtbertError, match=r"compute\.precision is bf16, but this GPU does not multiply it; set it to auto"
    ):
        resolve("cuda", "bf16", "auto")


def test_rocm_is_a_plain_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(module, "_native_bf16", lambda _device: True)
    found = resolve("auto", "bf16", "auto", cuda_graphs="auto")
    assert found.device.type == "cuda" and found.bf16 and not found.graphs
    with pytest.raises(MtbertError, match=r"cuda_graphs is true, but this torch is built for ROCm; set it to auto"):
        resolve("auto", "bf16", "auto", cuda_graphs=True)


@pytest.mark.usefixtures("no_cuda")
def test_on_a_mac_it_is_the_cpu_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    module._note.cache_clear()
    assert {resolve("auto", "fp32", "auto").device.type for _ in range(2)} == {"cpu"}
    assert resolve("cpu", "fp32", "auto").device.type == "cpu"
    assert capsys.readouterr().err.count("Apple's GPU") == 1


def test_threads() -> None:
    torch.set_num_threads(1)
    resolve("cpu", "fp32", "auto")
    assert torch.get_num_threads() == 1
    resolve("cpu", "fp32", 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_autocast_follows_the_precision(precision: str, dtype: torch.dtype) -> None:
    compute = resolve("cpu", precision, "auto")
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert compute.describe()["precision"] == precision
    assert compute.describe()["device"] == "cpu"
    assert compute.describe()["torch"] == torch.__version__
