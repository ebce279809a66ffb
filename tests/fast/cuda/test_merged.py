"""Adapted layers multiply by merged weights as they compute by themselves, with their gradients, whatever happens to the weights between steps."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtbert.fast.cuda.merged import MergedWeights, weight_and_bias
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


def outputs(made: nn.ModuleList) -> Tensor:
    torch.manual_seed(1)
    return torch.cat([layer(torch.randn(4, layer.weight.shape[1], dtype=torch.double)).flatten() for layer in made])


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_the_layers_own(kind: str) -> None:
    plain, fast = layers(kind), layers(kind)
    expected = outputs(plain)
    expected.square().sum().backward()
    with MergedWeights(fast).ready():
        assert all(weight_and_bias(layer) is not None for layer in fast)
        found = outputs(fast)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == name.endswith(".weight")
        torch.testing.assert_close(one.grad, other.grad)


def test_a_zero_row_stays_zero() -> None:
    made = layers()
    with torch.no_grad():
        made[0].weight[2] = made[0].lora_b[2] = 0
    with MergedWeights(made).ready():
        outputs(made).sum().backward()
        found = weight_and_bias(made[0])
    assert found is not None and torch.equal(found[0][2], torch.zeros(7, dtype=torch.double))
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters() if parameter.grad is not None)


def test_a_step_sees_the_weights_of_now() -> None:
    """As updated, as loaded from a checkpoint, and as moved to other storage."""
    made = layers()
    merged = MergedWeights(made)
    other = {name: 2 * value for name, value in deepcopy(made.state_dict()).items()}
    changes: tuple[Callable[[], Any], ...] = (
        lambda: nn.init.normal_(made[0].lora_a),
        lambda: made.load_state_dict(other),
        lambda: setattr(made[1].weight, "data", 3 * made[1].weight.data),
    )
    for change in changes:
        with merged.ready():
            before = outputs(made)
        with torch.no_grad():
            change()
        with merged.ready():
            found = outputs(made)
        assert not torch.equal(found, before)
        torch.testing.assert_close(found, outputs(made))


def test_dropout_in_the_adapter_leaves_a_layer_as_it_is() -> None:
    made = layers(dropout=0.5)
    with MergedWeights(made).ready():
        assert weight_and_bias(made[0]) is None


def test_afterwards_the_layers_compute_by_themselves() -> None:
    made = layers()
    with pytest.raises(ZeroDivisionError), MergedWeights(made).ready():
        raise ZeroDivisionError
    assert all(layer.forward.__func__ is DoraLinear.forward for layer in made)


def test_weights_side_by_side_are_saved_one_by_one(tmp_path: Path) -> None:
    made = layers()
    expected = deepcopy(made.state_dict())
    with MergedWeights(made).ready():
        pass
    save_model(tmp_path, dict(made.state_dict()), {"encoder": {}})
    found = read_safetensors(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


class Count(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        self.operations += 1
        return function(*arguments, **(keywords or {}))


def test_a_further_layer_costs_little_more_than_one_without_an_adapter() -> None:
    """Views of the stacked parameters are no launches, but are counted here too."""

    def operations(count: int, together: bool, plain: bool = False) -> int:
        made = nn.ModuleList(nn.Linear(7 + n % 2, 5).double() for n in range(count)) if plain else layers(count=count)
        merged = MergedWeights(made)
        with Count() as counted:
            if together:
                with merged.ready():
                    outputs(made).sum().backward()
            else:
                outputs(made).sum().backward()
        return counted.operations

    plain, merged, alone = (
        operations(24, *kind) - operations(12, *kind) for kind in ((False, True), (True,), (False,))
    )
    assert plain < merged < alone / 2
