"""Predictions from a head's output, the loss of each objective, and that reading the settings does not import torch."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.work import objectives
from mtbert.tasks.correlation import CoSent, CosineCoSent, Pearson
from mtbert.tasks.losses import log_probabilities_of_ranks
from mtbert.tasks.objective import CosineEmbedding, MeanSquaredError
from mtbert.tasks.ordinal import Corn
from mtbert.tasks.paper import QUORA, SST, STS, known_tasks
from mtbert.tasks.registry import OBJECTIVES
from mtbert.tasks.task import Task

LAYERS, COSINES = objectives(["u"], ["u"]), objectives(None, None)
EACH: dict[str, Any] = {one.objective: one for one in (*LAYERS.values(), *COSINES.values())} | {
    "corn": Corn(objective="corn", features=["u"]),
    "pearson": Pearson(objective="pearson", features=["u"], clamp=True),
    "cosent": CoSent(objective="cosent", features=["u"], clamp=True),
    "cosine_cosent": CosineCoSent(objective="cosine_cosent"),
}


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
    assert (clamped.values.tolist(), clamped.scores.tolist()) == ([0, 0, 2.25, 5, 5], raw.tolist())
    assert free.values.tolist() == [-0.5, 0, 2.25, 5, 5.5]


def test_a_cosine_maps_to_the_whole_range() -> None:
    raw = np.array([-1, 0, 0.5, 1], np.float32)
    assert COSINES["sts"].decide(raw, STS).values.tolist() == [0, 2.5, 3.75, 5]
    own = known_tasks({"own": {"texts": ["a", "b"], "label": "c", "kind": "score", "low": -1, "high": 1}})["own"]
    assert COSINES["sts"].decide(raw, own).values.tolist() == [-1, 0, 0.5, 1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_loss_takes_what_its_head_gives(name: str) -> None:
    found = EACH[name]
    task = next(task for task in (SST, QUORA, STS) if task.kind in found.kinds)
    scores = torch.zeros((4, found.outputs(task)) if found.outputs(task) > 1 else 4, requires_grad=True)
    loss = found.loss()(scores, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    expected = {
        **{"cross_entropy": np.log(5), "corn": 1.5 * np.log(2), "bce": np.log(2), "cosine": np.log(2)},
        **{"mse": 0.5, "pearson": 1, "cosent": np.log(5)},
        **{"cosine_embedding": 0.0, "cosine_cosent": np.log(5)},
    }
    assert loss.item() == pytest.approx(expected[name])
    output = scores + torch.arange(4.0).view(4, *[1] * (scores.ndim - 1))
    assert found.divergence(output, output).item() == pytest.approx(0, abs=1e-6)


def test_corn_gives_each_class_a_probability() -> None:
    """P(y = k) is P(y >= k) (1 - P(y > k | y >= k)); of two classes the head gives one logit."""
    raw = np.array([[0, 0, 0, 0], [-800, 0, 0, 0], [800, 800, 800, 800], [2, 1, -1, 0]], np.float32)
    shares = EACH["corn"].probabilities(raw, SST)
    np.testing.assert_allclose(shares[:3], [[1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    np.testing.assert_allclose(shares, log_probabilities_of_ranks(torch.tensor(raw)).exp(), atol=1e-6)
    found = EACH["corn"].decide(raw, SST)
    assert found.values.tolist() == [0, 0, 4, 2]
    assert found.scores.tolist() == shares.max(1).tolist()
    two = EACH["corn"].probabilities(np.array([0, 3], np.float32), SST)
    np.testing.assert_allclose(two[:, 1], 1 / (1 + np.exp([0, -3])), rtol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "cosent"])
def test_a_correlated_score_is_limited_only_when_training_has_ended(name: str) -> None:
    raw = np.array([-3, 1, 7], np.float32)
    assert EACH[name].values_while_training(raw, STS).tolist() == [-3, 1, 7]
    assert EACH[name].decide(raw, STS).values.tolist() == [0, 1, 5]
    one, other = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 5.0, 9.0])
    assert EACH[name].divergence(one, other).item() == pytest.approx(0, abs=1e-6), "whatever its scale"


def test_the_cosine_loss_has_its_own_margin_and_threshold() -> None:
    one = CosineEmbedding(objective="cosine_embedding", margin=-1.0, threshold=0.5)
    assert one.loss()(torch.zeros(2), torch.tensor([0.0, 1.0])).item() == 1.0, "1 - 0, and 0 - (-1)"


def test_settings_are_read_without_torch() -> None:
    code = "import sys, mtbert.params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("name", "task"), [("cross_entropy", SST), ("corn", SST), ("bce", QUORA), ("cosine", QUORA)])
def test_the_divergence_of_labels_is_that_of_their_probabilities(name: str, task: Task) -> None:
    objective = EACH[name]
    one, other = torch.randn(2, 6, objective.outputs(task), generator=torch.Generator().manual_seed(0)).squeeze(-1)
    p, q = (objective.probabilities(raw.numpy(), task) for raw in (one, other))
    expected = ((p - q) * np.log(p / q)).sum(1).mean() / 2
    assert float(objective.divergence(one, other)) == pytest.approx(expected, rel=1e-5)
