"""R-Drop and the tasks' weights, against their formulas; training with them resumes to the same bits."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.work import objectives
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for, kernels
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.paper import TASKS
from mtbert.training.checkpoint import trained
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain, parameter_groups
from mtbert.training.loop import Training
from mtbert.training.optimization import Optimization
from mtbert.training.recipe import Recipe
from mtbert.training.task_losses import task_losses, with_r_drop
from mtbert.training.uncertainty import UncertaintyWeights
from tests.training.trainer import Losses

HEADS = objectives(["u", "v", "c"], ["|u-v|", "c"])
CPU = Compute(torch.device("cpu"), bf16=False)
RECIPE = Recipe(
    "square_root", 4, epochs=2, batch_size=3, learning_rate=0.01, seed=11, passes=2, uncertainty_learning_rate=0.02
)
GENERATOR = torch.Generator().manual_seed(0)


def published_r_drop(alpha: float, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """As https://github.com/dropreg/R-Drop prints it, with the mean over the batch."""
    cross = 0.5 * (F.cross_entropy(one, labels) + F.cross_entropy(other, labels))
    p_loss = F.kl_div(F.log_softmax(one, dim=-1), F.softmax(other, dim=-1), reduction="none")
    q_loss = F.kl_div(F.log_softmax(other, dim=-1), F.softmax(one, dim=-1), reduction="none")
    return cross + alpha * (p_loss.sum() + q_loss.sum()) / 2 / len(labels)


def test_r_drop_is_the_published_loss() -> None:
    one, other = torch.randn(2, 6, 5, generator=GENERATOR)
    labels = torch.tensor([0, 1, 2, 3, 4, 4.0])
    found = with_r_drop(HEADS["sst"], 4.0)(torch.cat([one, other]), labels.repeat(2))
    torch.testing.assert_close(found, published_r_drop(4.0, one, other, labels.long()))


def test_r_drop_of_a_logit_is_that_of_two_classes() -> None:
    one, other = torch.randn(2, 6, generator=GENERATOR)
    labels = torch.tensor([0, 1, 1, 0, 0, 1.0])
    found = with_r_drop(HEADS["quora"], 4.0)(torch.cat([one, other]), labels.repeat(2))
    two = [torch.stack([torch.zeros(6), logits], 1) for logits in (one, other)]
    torch.testing.assert_close(found, published_r_drop(4.0, *two, labels.long()))


def test_r_drop_of_scores_is_their_squared_difference() -> None:
    one, other, labels = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0])
    found = with_r_drop(HEADS["sts"], 0.5)(torch.cat([one, other]), labels.repeat(2))
    assert float(found) == (0 + 2) / 2 + 0.5 * 2


def test_two_passes_without_dropout_are_one(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model, split, rows = make_model(dropout=0.0, head_dropout=0.0), make_split("sts", 5), np.arange(5)
    once, twice = (make_batch("sts", split, np.tile(rows, n), model.views("sts"), wrapper) for n in (1, 2))
    one = HEADS["sts"].loss()(model(once), once.labels)
    torch.testing.assert_close(with_r_drop(HEADS["sts"], 9.0)(model(twice), twice.labels), one)


def test_fixed_weights_multiply() -> None:
    scores, labels = torch.randn(4, generator=GENERATOR), torch.tensor([0, 1, 1, 0.0])
    plain, weighted = task_losses(HEADS), task_losses(HEADS, weights={"quora": 2.5})
    assert float(weighted["quora"](scores, labels)) == pytest.approx(2.5 * float(plain["quora"](scores, labels)))
    assert weighted["sts"](scores, labels) == plain["sts"](scores, labels)


def test_uncertainty_weighs_by_its_log_variances() -> None:
    weights = UncertaintyWeights(TASKS)
    for number, parameter in enumerate(weights.log_variances):
        parameter.data.fill_(0.3 * (number + 1))
    loss = torch.tensor(1.7)
    for task, s, factor in (("sst", 0.3, 1), ("quora", 0.6, 1), ("sts", 0.9, 0.5)):
        assert weights.weighted(task, loss).item() == pytest.approx(factor * math.exp(-s) * 1.7 + s / 2)
    assert weights.learned() == pytest.approx({"sst": 0.3, "quora": 0.6, "sts": 0.9})
    weights.weighted("quora", loss).backward()
    assert [parameter.grad is None for parameter in weights.log_variances] == [True, False, True]


def test_log_variances_have_their_own_rate(make_model: Callable[..., MultitaskModel]) -> None:
    model = make_model()
    model.uncertainty = UncertaintyWeights(TASKS)
    rates = {p: group["lr"] for group in parameter_groups(model, RECIPE) for p in group["params"]}
    assert {name for name, p in trained(model).items() if rates[p] == 0.02} == {
        f"uncertainty.log_variances.{n}" for n in range(3)
    }


class Interruption(Exception):
    """Simulates a kill."""


class Dying(Losses):
    """The loss of each step, until step `last`."""

    def __init__(self, last: int) -> None:
        self._last = last

    def step(self, step: Any) -> None:
        super().step(step)
        if step.step == self._last:
            raise Interruption


def twice(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss, which must get a batch's examples twice, one pass after the other."""

    def of(scores: Tensor, labels: Tensor) -> Tensor:
        assert torch.equal(*labels.chunk(2))
        return loss(scores, labels)

    return of


def fresh(make_model: Callable[..., MultitaskModel], dropout: float = 0.3) -> tuple[MultitaskModel, dict[str, Any]]:
    model = make_model("mean", ["u", "v", "c"], ["|u-v|", "c"], dropout=dropout, head_dropout=dropout)
    model.uncertainty = weights = UncertaintyWeights(TASKS)
    losses = task_losses(HEADS, r_drop=1.5, uncertainty=weights)
    return model, {task: twice(loss) for task, loss in losses.items()}


@pytest.mark.parametrize("engine", [Plain, engine_for])
def test_interrupted_at_any_step_a_run_ends_in_the_same_bits(
    engine: Callable[[MultitaskModel, Compute], Engine],
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    tmp_path: Path,
) -> None:
    if engine is engine_for and not kernels()[0]:
        pytest.skip(kernels()[1])
    recipe = Optimization(warmup=0.3, decay="linear", clip_norm=0.5, average=0.9)

    def run(folder: str, last: int = 0) -> dict[str, Tensor]:
        model, losses = fresh(make_model)
        Training(
            engine(model, CPU),
            {task: make_split(task, rows) for task, rows in {"sst": 6, "quora": 9, "sts": 5}.items()},
            losses,
            Recipe(**{**vars(RECIPE), "optimization": recipe}),
            wrapper=wrapper,
            evaluate=lambda _: {},
            observers=[Dying(last)],
            work=tmp_path / folder,
            checkpoint_seconds=0.0,
        ).run()
        return model.state_dict()

    undisturbed = run("undisturbed")
    assert any("uncertainty" in name and value != 0 for name, value in undisturbed.items() if value.ndim == 0)
    for step in range(1, 9):
        with pytest.raises(Interruption):
            run(str(step), step)
        resumed = run(str(step))
        assert all(torch.equal(value, resumed[name]) for name, value in undisturbed.items()), step
