"""On a device, with deterministic algorithms: SIGKILL and resume of a training process, and predictions close to the CPU's."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mtbert.files import sha256_file
from mtbert.training.compute import resolve
from tests.project import call, start, tiny_project
from tests.tiny import WRAPPER, tiny_model, tiny_split

TRAIN = """
import torch
torch.use_deterministic_algorithms(True, warn_only=True)
from stages.train import main
main("baseline")
"""


def trained(project: Path, kills: int, rng: random.Random) -> tuple[dict[str, str], int]:
    """Kill a run `kills` times at random instants; its files' checksums, and how many kills left a checkpoint."""
    saved = 0
    for _ in range(kills):
        process = start(project, sys.executable, "-c", TRAIN)
        deadline = time.monotonic() + 90
        while (
            not list(project.glob(".mtbert/*/latest.json")) and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        saved += bool(list(project.glob(".mtbert/*/latest.json")))
        if (project / "models/baseline/model.safetensors").exists():
            break
    status, output = call(project, sys.executable, "-c", TRAIN)
    assert status == 0, output
    folder = project / "models" / "baseline"
    return {name: sha256_file(folder / name) for name in ("model.safetensors", "history.csv")}, saved


def killed_and_not(
    folder: Path, device: str, kills: int, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool = False
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    project = tiny_project(
        folder,
        compute__device=device,
        compute__precision="bf16" if device == "cuda" else "fp32",
        compute__cuda_graphs=cuda_graphs,
        runs__baseline__epochs=40,
        runs__baseline__epoch_end=20,
        encoder__random={"seed": 1, "layers": 2, "hidden": 64, "heads": 2, "intermediate": 128, "positions": 256},
    )
    for stage in ("plan", "fetch", "encoder", "prepare"):
        status, output = call(project, sys.executable, "-m", f"stages.{stage}")
        assert status == 0, output
    undisturbed, _ = trained(project, 0, random.Random(1))
    (project / "models/baseline").rename(project / "models/undisturbed")
    killed, saved = trained(project, kills, random.Random(2))
    assert saved > 0, "no kill fell between a checkpoint and the end"
    assert killed == undisturbed


@pytest.mark.slow
def test_kills_of_a_process_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests `killed_and_not` where there is no GPU."""
    killed_and_not(tmp_path / "project", "cpu", 3, monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_twenty_kills_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool) -> None:
    killed_and_not(tmp_path / "project", "cuda", 20, monkeypatch, cuda_graphs)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.1)])
def test_a_gpu_s_predictions_are_close_to_the_cpu_s(precision: str, tolerance: float) -> None:
    """Close, not equal: SECURITY.md and the README promise equal bits on one device only."""
    from mtbert.evaluation.predict import raw_scores

    compute = resolve("cuda", precision, "auto")
    model, split = tiny_model("mean").eval(), tiny_split("quora", 200)
    exact = raw_scores(model, "quora", split, WRAPPER)
    with compute.autocast():
        found = raw_scores(model.to(compute.device), "quora", split, WRAPPER)
    print(f"largest difference in {precision}: {np.abs(found - exact).max():.2g}")
    np.testing.assert_allclose(found, exact, atol=tolerance * float(np.abs(exact).max()))
