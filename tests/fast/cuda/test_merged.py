"""Merged weights give the outputs and gradients of the layers by themselves, whatever happens to the weights between steps."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.operations import Count
from mtbert.fast.cuda.merged import Merge, MergedWeights, kind
from mtbert.model.dropout import Dropout, Noise
from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear
from mtbert.pretrained.store import read_safetensors, save_model

KINDS: dict[str, Callable[..., LoraLinear]] = {
    "lora": LoraLinear,
    "dora": DoraLinear,
    "dora, norm detached": lambda *arguments: DoraLinear(*arguments, exact_norm=False),
}


def layers(kind: str = "dora", count: int = 6, dropout: float = 0.0) -> nn.ModuleList:
    """Layers of two shapes in turn, whose updates are as large as their weights."""
    torch.manual_seed(0)
    made = nn.ModuleList(
        KINDS[kind](nn.Linear(7 + n % 2, 5), 3, 6.0, Dropout(dropout, Noise())).double() for n in range(count)
    )
    for layer in made:
        nn.init.normal_(layer.lora_b)
    return made


def together(made: nn.ModuleList) -> MergedWeights:
    """Merged weights of the layers, of which the first and the third have one shape and share a product."""
    units = [(made[0], made[2]), *((layer,) for n, layer in enumerate(made) if n not in (0, 2))]
    return MergedWeights(units, torch.double, Merge)


def outputs(made: nn.ModuleList, merged: MergedWeights | None = None) -> Tensor:
    """The layers' outputs for made-up inputs, by themselves or with merged weights."""
    torch.manual_seed(1)
    inputs = [torch.randn(4, layer.weight.shape[1], dtype=torch.double) for layer in made]
    if merged is None:
        return torch.cat([layer(x).flatten() for layer, x in zip(made, inputs, strict=True)])
    weights = {
        layer: w
        for unit, whole in merged.weights().items()
        for layer, w in zip(unit, whole.chunk(len(unit)), strict=True)
    }
    found = [F.linear(x, weights[layer], layer.bias) for layer, x in zip(made, inputs, strict=True)]
    return torch.cat([y.flatten() for y in found])


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_the_layers_own(kind: str) -> None:
    plain, fast = layers(kind), layers(kind)
    expected = outputs(plain)
    expected.square().sum().backward()
    found = outputs(fast, together(fast))
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == name.endswith(".weight")
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_uses_the_weights_of_training(kind: str) -> None:
    """Bit by bit, although it forms them under autocast."""
    made = layers(kind).float()
    merged = MergedWeights([(layer,) for layer in made], torch.bfloat16, Merge)
    expected = merged.weights()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = merged.weights()
    assert all(torch.equal(found[unit], weight) for unit, weight in expected.items())


def test_a_zero_row_stays_zero() -> None:
    made = layers()
    with torch.no_grad():
        made[0].weight[2] = made[0].lora_b[2] = 0
    outputs(made, together(made)).sum().backward()
    (weight, *_) = together(made).weights().values()
    assert torch.equal(weight[2], torch.zeros(7, dtype=torch.double))
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters() if parameter.grad is not None)


def test_a_step_sees_the_weights_of_now() -> None:
    """As updated, as loaded from a checkpoint, and as moved to other storage."""
    made = layers()
    merged = together(made)
    other = {name: 2 * value for name, value in deepcopy(made.state_dict()).items()}
    changes: tuple[Callable[[], Any], ...] = (
        lambda: nn.init.normal_(made[0].lora_a),
        lambda: made.load_state_dict(other),
        lambda: setattr(made[1].weight, "data", 3 * made[1].weight.data),
    )
    for change in changes:
        before = outputs(made, merged)
        with torch.no_grad():
            change()
        found = outputs(made, merged)
        assert not torch.equal(found, before)
        torch.testing.assert_close(found, outputs(made))


def test_dropout_in_the_adapter_leaves_a_layer_as_it_is() -> None:
    made = layers(dropout=0.5)
    assert kind(made[0]) is None and not MergedWeights([(layer,) for layer in made], torch.double, Merge).weights()


def test_weights_side_by_side_are_saved_one_by_one(tmp_path: Path) -> None:
    made = layers()
    expected = deepcopy(made.state_dict())
    together(made).weights()
    save_model(tmp_path, dict(made.state_dict()), {"encoder": {}})
    found = read_safetensors(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("kind_of", KINDS)
def test_a_further_layer_costs_no_operation(kind_of: str) -> None:
    def counted(count: int) -> int:
        made = layers(kind_of, count)
        merged = together(made)
        merged.weights()  # moves W0
        with Count() as seen:
            sum(weight.sum() for weight in merged.weights().values()).backward()  # type: ignore[union-attr]
        return seen.operations.total() - 2 * len(merged.weights())  # sums, and what adds them up

    assert counted(6) == counted(24)


def test_dora_takes_no_more_memory_than_lora() -> None:
    """But for a few vectors."""

    def peak(kind_of: str) -> int:
        made = nn.ModuleList(KINDS[kind_of](nn.Linear(64, 64), 1, 1.0, None) for _ in range(4))
        merged = MergedWeights([(layer,) for layer in made], torch.bfloat16, Merge)
        with Count() as seen:
            torch.stack([weight.sum() for weight in merged.weights().values()]).sum().backward()
        return seen.peak

    assert peak("lora") < peak("dora") < 1.1 * peak("lora")
