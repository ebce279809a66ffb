"""Several processes take the same steps as one, up to rounding; and what goes wrong between them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbert.data.batches import Batch, make_batch
from mtbert.data.shares import Share, Spans
from mtbert.errors import MtbertError, Stopped
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.distributed import ALONE, Group, joined, placed
from mtbert.training.loop import Training
from mtbert.training.recipe import Recipe
from tests.tiny import WRAPPER, tiny_split
from tests.training.trainer import CASES, GPU_CASES, LOSSES, Case, trained

CPU, GPU = Compute(torch.device("cpu"), bf16=False), Compute(torch.device("cuda"), bf16=True, graphs=True)
# Batches of 5 among three processes: 2, 2 and 1; the last of a pass 1, 1 and 0, or 1, 0 and 0.
PROCESSES = 3
LIMITS = {"fp64": 1e-8, "fp32": 1e-6}


def whole_batch(task: str = "quora", rows: int = 5) -> Batch:
    views = ("u",) if task == "sst" else ("u", "v", "c")
    return make_batch(task, tiny_split(task, 12), np.arange(rows), views, WRAPPER)


@pytest.mark.parametrize("rows", [5, 2])
@pytest.mark.parametrize("task", ["sst", "quora"])
def test_shares_are_batches_of_every_nth_example(task: str, rows: int) -> None:
    views = ("u",) if task == "sst" else ("u", "v", "c")
    shares = [whole_batch(task, rows).part(process, PROCESSES) for process in range(PROCESSES)]
    for process, share in enumerate(shares):
        chosen = np.arange(process, rows, PROCESSES)
        expected = make_batch(task, tiny_split(task, 12), chosen if len(chosen) else np.arange(1), views, WRAPPER)
        assert share.share is not None and share.share.weight == len(chosen) / rows
        for one, other in ((share.stream, expected.stream), (share, expected)):
            for name, value in vars(other).items():
                if torch.is_tensor(value):
                    assert torch.equal(getattr(one, name), value), name
        assert (share.stream.tokens, share.stream.longest) == (expected.stream.tokens, expected.stream.longest)


def backward(model: MultitaskModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores of a batch or a share, and gradients, weighted."""
    model.train().zero_grad(set_to_none=True)
    model.reseed(3, 4, batch.share)
    scores = model(batch)
    (LOSSES[batch.task](scores, batch.labels) * (batch.share.weight if batch.share else 1)).backward()
    return scores.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def differences(case: Case, task: str, rows: int, processes: int = PROCESSES) -> tuple[float, float]:
    """Between the whole batch and its shares: of any score, and of any gradient relative to the parameter's largest."""
    model, batch = case.engine().model, whole_batch(task, rows)
    scores, gradients = backward(model, batch)
    sums = {name: torch.zeros_like(gradient) for name, gradient in gradients.items()}
    apart = 0.0
    for process in range(processes):
        found, part = backward(model, batch.part(process, processes))
        assert part.keys() == gradients.keys(), "a process without an example has a gradient for each parameter too"
        for name, gradient in part.items():
            sums[name] += gradient
        if process < rows:
            apart = max(apart, float((found - scores[process::processes]).abs().max()))
    relative = [
        float((sums[name] - gradient).abs().max() / gradient.abs().max())
        for name, gradient in gradients.items()
        if not name.endswith("key.bias")  # zero but for rounding: softmax ignores what is added to all scores
    ]
    return apart, max(relative)


@pytest.mark.parametrize("task", ["sst", "quora"])
@pytest.mark.parametrize("case", CASES)
def test_shares_have_the_scores_and_gradients_of_the_whole_batch(case: str, task: str) -> None:
    if CASES[case].type == "bf16":
        pytest.skip("its rounding hides the rest; see the comparison of whole runs")
    limit = {"fp32": 1e-5, "fp64": 1e-6}[CASES[case].type]  # scores are fp32 in any case
    for rows in (5, 2):
        assert max(differences(CASES[case], task, rows)) < limit


def _shifted(spans: Spans) -> Spans:
    return spans._replace(spans=[(0, end - first) for first, end in spans.spans])


@pytest.mark.parametrize("unit", ["tokens", "sequences", "weights", "examples"])
@pytest.mark.parametrize("fast", [False, True])
def test_the_comparison_notices_a_wrong_mask(unit: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [one for one in CASES.values() if one.fast == fast and one.pooling == "cls"]
    real = Share.of

    def wrong(*given: Any) -> Share:
        share = real(*given)
        return share._replace(**{unit: _shifted(getattr(share, unit))})

    monkeypatch.setattr(Share, "of", wrong)
    for case in cases:
        assert min(differences(case, "quora", 5)) > 1e-3


def launch(processes: int, folder: Path, device: str) -> Path:
    """Train all cases for a device by several processes; returns the folder with what they made."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*torchrun, "-m", "tests.training.trainer", str(folder), device]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def by_several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes made of all cases."""
    return launch(PROCESSES, tmp_path_factory.mktemp("several"), "cpu")


def read(folder: Path, case: str) -> tuple[list[float], dict[str, Tensor]]:
    losses = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
    return losses, load_file(folder / f"{case}.safetensors")


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between two models' weights."""
    assert one.keys() == other.keys()
    # The bias of keys has a gradient of rounding errors alone, which AdamW scales to whole steps.
    return max(float((one[name] - other[name]).abs().max()) for name in one if not name.endswith("key.bias"))


@pytest.mark.parametrize("case", [name for name, one in CASES.items() if one.type != "bf16"])
def test_several_processes_end_in_the_weights_of_one(by_several: Path, case: str) -> None:
    losses, weights = read(by_several, case)
    alone_losses, alone = trained(CASES[case])
    limit = LIMITS[CASES[case].type]
    # Losses are kept in fp32.
    assert losses == pytest.approx(alone_losses, rel=max(1e-6, 2 * limit))
    assert apart(weights, alone) < limit


@pytest.mark.skipif("fast-bf16" not in CASES, reason="no kernels")
def test_in_bf16_they_are_no_further_apart_than_bf16_is_from_fp32(by_several: Path) -> None:
    losses, weights = read(by_several, "fast-bf16")
    alone_losses, alone = trained(CASES["fast-bf16"])
    exact_losses, exact = trained(CASES["fast-fp32"])

    def far(one: list[float], other: list[float]) -> float:
        return float(np.abs(np.subtract(one, other)).mean())

    assert far(losses, alone_losses) < 1.5 * far(alone_losses, exact_losses)
    assert apart(weights, alone) < 1.5 * apart(alone, exact)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_end_in_the_weights_of_one(tmp_path: Path) -> None:
    launch(2, tmp_path, "cuda")
    for case, limit in (("plain-fp64", 1e-8), ("plain-fp32", 1e-5), ("fast-bf16", 1e-3)):
        losses, weights = read(tmp_path, case)
        alone_losses, alone = trained(GPU_CASES[case], device="cuda")
        assert losses == pytest.approx(alone_losses, rel=1e-2 if case == "fast-bf16" else 1e-5)
        assert apart(weights, alone) < limit


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU) as group:
        assert group is ALONE
    assert placed(GPU) is GPU


def test_world_size_alone_does_not_start_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(MtbertError, match=r"WORLD_SIZE is 2, but RANK.* not set; start with torchrun"), joined(CPU):
        pass


def test_each_process_has_its_own_gpu_and_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placed(GPU) == Compute(torch.device("cuda", 1), bf16=True, graphs=False)
    assert placed(CPU) is CPU
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MtbertError, match=r"2 GPUs, too few for process 3 on it; .* --nproc-per-node 2"):
        placed(GPU)


def test_the_others_stop_with_the_first_and_write_nothing(tmp_path: Path) -> None:
    """The first one was asked to stop while it evaluates and the others wait."""

    class Second(Group):
        def largest(self, number: int) -> int:
            assert number == 0
            return signal.SIGTERM

        def of_first(self, value: Any) -> Any:
            return value

    with pytest.raises(Stopped, match="stopped by SIGTERM after step 0"):
        Training(
            CASES["plain-fp32"].engine(),
            {"sst": tiny_split("sst", 4)},
            LOSSES,
            Recipe("sequential", "depletion", epochs=1, batch_size=2, learning_rate=1e-4),
            wrapper=WRAPPER,
            evaluate=lambda _: pytest.fail("evaluated"),
            work=tmp_path,
            checkpoint_seconds=0,
            group=Second(1, 2),
        ).run()
    assert not list(tmp_path.iterdir())


def test_another_value_than_the_first_process_is_named() -> None:
    class Second(Group):
        def of_first(self, value: Any) -> Any:
            return {"torch": "2.13.0", "kernels": "g++"}

    Second(1, 2).check_same("start", {"torch": "2.13.0", "kernels": "g++"}, "")
    differing = r"torch \('2.12', not '2.13.0'\), kernels \(None, not 'g\+\+'\); x"
    with pytest.raises(MtbertError, match=rf"process 1 has another start than process 0: {differing}"):
        Second(1, 2).check_same("start", {"torch": "2.12"}, "x")
