"""Rates, clipping and averages, against transformers and torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import adapter_state
from mtbert.training.average import Average
from mtbert.training.engine import clip, parameter_groups, set_rates
from mtbert.training.optimization import Optimization
from mtbert.training.recipe import Recipe
from tests.tiny import adapt

REFERENCE = {
    "none": lambda optimizer, warm, steps: transformers.get_constant_schedule_with_warmup(optimizer, warm),
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": transformers.get_cosine_schedule_with_warmup,
}


@pytest.mark.parametrize("decay", REFERENCE)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 7), (0.1, 50), (0.33, 10), (0.99, 3)])
def test_rates_are_those_of_transformers(decay: Any, warmup: float, steps: int) -> None:
    optimization = Optimization(warmup=warmup, decay=decay)
    warm = -int(-warmup * steps // 1)  # rounded up, as TrainingArguments.get_warmup_steps does
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = REFERENCE[decay](theirs, warm, steps)
    ours = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    for step in range(1, steps + 1):
        set_rates(ours, optimization.factor(step, steps))
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        theirs.step()
        schedule.step()
    assert optimization.varies == (warmup > 0 or decay != "none")


def test_a_rate_in_a_tensor_is_set_in_place() -> None:
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=rate, fused=True)
    for factor in (0.5, 1.0, 0.0):
        set_rates(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] is rate and rate == 0.5 * factor


def test_a_rate_in_a_tensor_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading would wait for the GPU."""
    read, number = [], torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda rate: read.append(number(rate)) or read[-1])
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.5), fused=True)
    for factor in (0.5, 1.0, 0.0):
        set_rates(optimizer, factor)
    assert read == [0.5]


@pytest.mark.parametrize("largest", [0.1, 1e6])
def test_clipping_is_that_of_torch(largest: float) -> None:
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.zeros(size)) for size in (3, 50, 4)] for _ in range(2))
    for one, other in zip(ours[:2], theirs[:2], strict=True):  # the last one has no gradient
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    clip(ours, largest)
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=0)


def test_rates_by_depth_and_part(make_model: Callable[..., MultitaskModel]) -> None:
    model = make_model()
    adapt(model, "lora")
    added, layers = adapter_state(model), model.encoder.config.layers
    special = Optimization(layer_decay=0.5, head_learning_rate=3.0)
    groups = parameter_groups(model, Recipe("sequential", 1, 1, 8, 1.0, 2.0, optimization=special))
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, rate in rates.items():
        if name.startswith("heads."):
            assert rate == 3.0
        elif name.startswith("encoder.embeddings."):
            assert rate == 0.5 ** (layers + 1)
        elif name.startswith("encoder.layers."):
            layer = int(name.split(".")[2]) + 1
            assert rate == (2.0 if name in added else 1.0) * 0.5 ** (layers + 1 - layer)
        else:
            assert rate == (2.0 if name in added else 1.0)
    assert len({rate for name, rate in rates.items() if "embeddings" in name or "layers" in name}) > layers


def test_the_average_of_the_weights() -> None:
    weight, unused = nn.Parameter(torch.zeros(3, dtype=torch.float64)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight, unused], lr=0.1)
    average, expected = Average(optimizer, 0.3), None
    for step in range(1, 9):
        weight.grad = torch.randn(3, dtype=torch.float64)
        optimizer.step()
        average.update(step)
        decay = min(0.3, step / (step + 9))
        now = weight.detach().clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
    assert expected is not None
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected)
        assert unused.tolist() == [1, 1]
    assert torch.equal(weight, now)
    average.apply()
    torch.testing.assert_close(weight.detach(), expected)


def test_an_average_of_no_steps_is_none() -> None:
    """The first loss may not be finite, which skips the update; the loop then says so."""
    weight = torch.nn.Parameter(torch.ones(2))
    Average(torch.optim.AdamW([weight]), 0.5).update(1)
    assert weight.tolist() == [1, 1]


def test_without_a_decay_there_is_no_average() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    Average(optimizer, None).update(1)
    assert optimizer.state[weight].keys() == {"step", "exp_avg", "exp_avg_sq"}
