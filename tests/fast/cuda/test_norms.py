"""The norms of all DoRA layers at once equal those of each layer, with their gradients, whatever happens to the weights between steps."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtbert.fast.cuda.norms import Norms
from mtbert.peft.dora import DoraLinear
from mtbert.pretrained.store import read_safetensors, save_model


def layers(exact: bool = True, count: int = 6) -> nn.ModuleList:
    """Layers of two shapes in turn, whose updates are as large as their weights."""
    torch.manual_seed(0)
    made = nn.ModuleList(
        DoraLinear(nn.Linear(7 + n % 2, 5), rank=3, alpha=6, exact_norm=exact).double() for n in range(count)
    )
    for layer in made:
        nn.init.normal_(layer.lora_b)
    return made


def outputs(made: nn.ModuleList) -> Tensor:
    torch.manual_seed(1)
    return torch.cat([layer(torch.randn(4, layer.weight.shape[1], dtype=torch.double)).flatten() for layer in made])


def gradients(made: nn.ModuleList) -> list[Tensor]:
    found = [parameter.grad for parameter in made.parameters() if parameter.requires_grad]
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "detached"])
def test_they_are_the_layers_own_norms_and_gradients(exact: bool) -> None:
    plain, fast = layers(exact), layers(exact)
    expected = outputs(plain)
    expected.square().sum().backward()
    with Norms(fast).ready():
        found = outputs(fast)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(fast), gradients(plain), strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_sees_the_weights_of_now() -> None:
    """As updated, as loaded from a checkpoint, and as moved to other storage."""
    made = layers()
    norms = Norms(made)
    other = {name: 2 * value for name, value in deepcopy(made.state_dict()).items()}
    changes = (
        lambda: nn.init.normal_(made[0].lora_a),
        lambda: made.load_state_dict(other),
        lambda: setattr(made[1].weight, "data", 3 * made[1].weight.data),
    )
    for change in changes:
        with norms.ready():
            before = outputs(made)
        with torch.no_grad():
            change()
        with norms.ready():
            found = outputs(made)
        assert not torch.equal(found, before)
        torch.testing.assert_close(found, outputs(made))


def test_afterwards_the_layers_compute_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = layers()
    with pytest.raises(ZeroDivisionError), Norms(made).ready():
        raise ZeroDivisionError
    assert all(layer.norm.__func__ is DoraLinear.norm for layer in made)


def test_weights_side_by_side_are_saved_one_by_one(tmp_path: object) -> None:
    made = layers()
    expected = deepcopy(made.state_dict())
    with Norms(made).ready():
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


def test_their_operations_do_not_grow_with_the_number_of_layers() -> None:
    """Beyond a layer's own: its views of the norms and of the stacked A and B, and their gradients."""

    def operations(count: int, together: bool) -> int:
        made = layers(count=count)
        norms = Norms(made)
        with norms.ready():
            pass
        with Count() as counted:
            if together:
                with norms.ready():
                    sum(layer.norm().sum() for layer in made).backward()
            else:
                sum(layer.norm().sum() for layer in made).backward()
        return counted.operations

    together, alone = (operations(24, kind) - operations(12, kind) for kind in (True, False))
    assert together < alone / 3
