"""Both engines against a slow reference: the same schedule through transformers' padded BertModel and torch's AdamW, fp32.

Stated tolerances, at every step of the loss curve: 1e-4 in fp32, 2% in bf16 (both relative to the largest loss).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import merge
from mtbert.peft.registry import ADAPTERS
from mtbert.pretrained.weights import from_hf
from mtbert.tasks.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain
from mtbert.training.recipe import Recipe
from mtbert.training.sampling import epoch_schedule
from tests.tiny import adapt, multitask

transformers = pytest.importorskip("transformers")

CONFIG = BertConfig(vocabulary=40, positions=32, layers=2, hidden=32, heads=2, intermediate=64)
SIZES = {"sst": 40, "quora": 90, "sts": 50}
LOSSES = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
RATE = 2e-3


class Reference(nn.Module):
    """The paper's best model in plain torch: a padded pass for u, v and c each, masked means, linear heads."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=CONFIG.vocabulary,
            max_position_embeddings=CONFIG.positions,
            num_hidden_layers=CONFIG.layers,
            hidden_size=CONFIG.hidden,
            num_attention_heads=CONFIG.heads,
            intermediate_size=CONFIG.intermediate,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        torch.manual_seed(0)
        self.bert = transformers.BertModel(config)
        self.heads = nn.ModuleDict(
            {task: nn.Linear(width * CONFIG.hidden, 5 if task == "sst" else 1) for task, width in WIDTHS.items()}
        )

    def forward(self, task: str, views: list[list[tuple[np.ndarray, int]]]) -> Tensor:
        return self.heads[task](torch.cat([self._pooled(view) for view in views], 1)).squeeze(-1)

    def _pooled(self, sequences: list[tuple[np.ndarray, int]]) -> Tensor:
        shape = len(sequences), max(len(ids) for ids, _ in sequences)
        ids, mask, segments = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
        for n, (one, second) in enumerate(sequences):
            ids[n, : len(one)] = torch.from_numpy(one.astype(np.int64))
            mask[n, : len(one)], segments[n, second : len(one)] = 1, 1
        hidden = self.bert(ids, mask, segments).last_hidden_state
        return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


WIDTHS = {"sst": 1, "quora": 3, "sts": 3}


@pytest.fixture(scope="module")
def data(make_split: Callable[..., Split]) -> dict[str, Split]:
    return {task: make_split(task, size) for task, size in SIZES.items()}


@pytest.fixture(scope="module")
def slow(data: dict[str, Split], wrapper: Wrapper) -> list[float]:
    """The reference's loss curve."""
    model = Reference()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    curve = []
    for task, rows in schedule():
        split = data[task]
        first = [split.ids1[split.offsets1[row] : split.offsets1[row + 1]] for row in rows]
        views = [[wrapper.single(one) for one in first]]
        if split.ids2 is not None and split.offsets2 is not None:
            second = [split.ids2[split.offsets2[row] : split.offsets2[row + 1]] for row in rows]
            views += [
                [wrapper.single(two) for two in second],
                [wrapper.pair(one, two) for one, two in zip(first, second, strict=True)],
            ]
        assert split.labels is not None
        scores, labels = model(task, views), torch.from_numpy(np.asarray(split.labels[rows]))
        if task == "sst":
            loss = F.cross_entropy(scores, labels.long())
        else:
            loss = (F.binary_cross_entropy_with_logits if task == "quora" else F.mse_loss)(scores, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return curve


def schedule() -> list[Any]:
    return [draw for epoch in (1, 2, 3) for draw in epoch_schedule(SIZES, 8, "square_root", 15, 7, epoch)]


MakeEngine = Callable[[MultitaskModel, Compute], Engine]


@pytest.fixture(params=["plain", "fast"])
def engine_of(request: pytest.FixtureRequest) -> MakeEngine:
    """engine_of(model, compute): the plain engine, and the fast one if available."""

    def make(model: MultitaskModel, compute: Compute) -> Engine:
        engine = Plain(model, compute) if request.param == "plain" else engine_for(model, compute)
        if request.param == "fast" and type(engine) is Plain:
            pytest.skip("no fast engine here; mtbert.engines says why")
        return engine

    return make


def our_model() -> MultitaskModel:
    reference = Reference()
    model = multitask(BertEncoder(CONFIG, 0.0), "mean", ["u", "v", "c"], ["u", "v", "c"], 0.0)
    model.encoder.load_state_dict(from_hf(reference.bert.state_dict(), CONFIG, "reference"))
    for task, head in reference.heads.items():
        model.heads[task].linear.load_state_dict(head.state_dict())
    return model


def train(
    engine: Engine, data: dict[str, Split], wrapper: Wrapper, steps: list[Any], eps: float | None = None
) -> list[float]:
    """The engine's loss curve."""
    optimizer = engine.optimizer(Recipe("square_root", 15, 3, 8, RATE))
    if eps is not None:
        optimizer.param_groups[0]["eps"] = eps
    model, curve = engine.model.train(), []
    for step, (task, rows) in enumerate(steps, start=1):
        batch = make_batch(task, data[task], rows, model.views(task), wrapper)
        curve.append(float(engine.step(batch, LOSSES[task], 0, step)))
    return curve


def difference(one: list[float], other: list[float]) -> float:
    return float(np.abs(np.array(one) - np.array(other)).max() / np.abs(other).max())


FP32, BF16 = (Compute(torch.device("cpu"), bf16) for bf16 in (False, True))


@pytest.mark.parametrize(("compute", "tolerance"), [(FP32, 1e-4), (BF16, 0.02)], ids=["fp32", "bf16"])
def test_the_loss_curve_is_that_of_the_padded_reference(
    engine_of: MakeEngine, compute: Compute, tolerance: float, data: dict[str, Split], wrapper: Wrapper,
    slow: list[float],
) -> None:  # fmt: skip
    assert np.mean(slow[-15:]) < 0.8 * np.mean(slow[:15]), "it learns, so that a wrong gradient would show"
    assert difference(train(engine_of(our_model(), compute), data, wrapper, schedule()), slow) < tolerance


def test_the_comparison_notices_a_wrong_optimizer(
    engine_of: MakeEngine, data: dict[str, Split], wrapper: Wrapper, slow: list[float]
) -> None:
    assert difference(train(engine_of(our_model(), FP32), data, wrapper, schedule(), eps=1e-3), slow) > 1e-3


@pytest.mark.parametrize(
    ("method", "own"), [*((method, {}) for method in ADAPTERS), *((m, {"dropout": 0.2}) for m in ("lora", "dora"))]
)
def test_a_trained_adapted_model_equals_its_merged_model(
    engine_of: MakeEngine, method: str, own: dict[str, float], data: dict[str, Split], wrapper: Wrapper
) -> None:
    """After real steps, merged and unmerged models give the same scores."""
    model = our_model()
    adapt(model, method, train_rest=False, **own)
    engine = engine_of(model, FP32)
    train(engine, data, wrapper, schedule()[:15])
    batch = make_batch("quora", data["quora"], np.arange(20), model.views("quora"), wrapper)
    model.eval()
    with engine.inference():
        before = model(batch)
    merge(model)
    with engine.inference():
        torch.testing.assert_close(model(batch), before, atol=1e-5, rtol=1e-5)
