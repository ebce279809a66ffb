"""Predictions from a head's output, the loss of each objective, and that reading the settings does not import torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.work import objectives
from mtbert.tasks.objective import CosineEmbedding, MeanSquaredError
from mtbert.tasks.paper import QUORA, SST, STS, known_tasks
from mtbert.tasks.registry import OBJECTIVES

LAYERS, COSINES = objectives(["u"], ["u"]), objectives(None, None)


def test_classes_are_decided_by_the_likeliest_with_its_probability() -> None:
    raw = np.array([[0, 1, 2, 3, 4], [5, 0, 0, 0, 0], [900, 0, 0, 0, 901]], np.float32)
    found = LAYERS["sst"].decide(raw, SST)
    assert found.values.tolist() == [4, 0, 4]
    exp = np.exp([0, 1, 2, 3, 4.0])
    expected = [exp[4] / exp.sum(), np.exp(5) / (np.exp(5) + 4), 1 / (1 + np.exp(-1))]
    assert found.scores.tolist() == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("objective", [LAYERS["quora"], COSINES["quora"]])
def test_a_binary_label_is_a_probability_above_one_half(objective: object) -> None:
    found = objective.decide(np.array([-2, 0, 1e-6, 3, -1e4, 1e4], np.float32), QUORA)  # type: ignore[attr-defined]
    assert found.values.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(2)), 0.5, 0.5, 1 / (1 + np.exp(-3)), 0, 1], abs=1e-6)


def test_a_score_is_clamped_only_if_asked() -> None:
    raw = np.array([-0.5, 0, 2.25, 5, 5.5], np.float32)
    clamped, free = (
        MeanSquaredError(objective="mse", features=["u"], clamp=clamp).decide(raw, STS) for clamp in (True, False)
    )
    assert clamped.values.tolist() == clamped.scores.tolist() == [0, 0, 2.25, 5, 5]
    assert free.values.tolist() == [-0.5, 0, 2.25, 5, 5.5]


def test_a_cosine_maps_to_the_whole_range() -> None:
    raw = np.array([-1, 0, 0.5, 1], np.float32)
    assert COSINES["sts"].decide(raw, STS).values.tolist() == [0, 2.5, 3.75, 5]
    own = known_tasks({"own": {"texts": ["a", "b"], "label": "c", "kind": "score", "low": -1, "high": 1}})["own"]
    assert COSINES["sts"].decide(raw, own).values.tolist() == [-1, 0, 0.5, 1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_loss_takes_what_its_head_gives(name: str) -> None:
    found = next(one for one in (*LAYERS.values(), *COSINES.values()) if one.objective == name)
    task = next(task for task in (SST, QUORA, STS) if task.kind in found.kinds)
    scores = torch.zeros((4, task.outputs) if task.outputs > 1 else 4, requires_grad=True)
    loss = found.loss(task)(scores, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    expected = {"cross_entropy": np.log(5), "bce": np.log(2), "cosine": np.log(2), "mse": 0.5, "cosine_embedding": 0.0}
    assert loss.item() == pytest.approx(expected[name])


def test_the_cosine_loss_has_its_own_margin_and_threshold() -> None:
    one = CosineEmbedding(objective="cosine_embedding", margin=-1.0, threshold=0.5)
    assert one.loss(STS)(torch.zeros(2), torch.tensor([0.0, 1.0])).item() == 1.0, "1 - 0, and 0 - (-1)"


def test_settings_are_read_without_torch() -> None:
    code = "import sys, mtbert.params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
