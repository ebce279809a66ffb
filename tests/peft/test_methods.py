"""The layers of the methods beside LoRA and DoRA (test_layers.py): against peft's, in outputs, gradients and merged weights; and rates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mtbert.peft.ia3 import Ia3Linear
from mtbert.peft.layer import AdaptedLinear
from mtbert.peft.lora import LoraLinear
from mtbert.peft.miss import MissLinear
from mtbert.peft.oft import OftLinear
from mtbert.peft.pissa import PissaLinear
from mtbert.peft.registry import ADAPTERS
from mtbert.peft.vera import SharedPair, VeraLinear
from mtbert.training.engine import parameter_groups
from mtbert.training.recipe import Recipe
from tests.tiny import adapt, tiny_model

peft = pytest.importorskip("peft")
O, I, R, ALPHA = 6, 12, 4, 6.0  # noqa: E741


class Case(NamedTuple):
    """A method.

    Attributes:
        ours: makes our layer of a linear one.
        config: peft's configuration for the linear layer "0".
        names: our trained parameters -> where peft's layer has them.
    """

    ours: Callable[[nn.Linear], AdaptedLinear]
    config: Any
    names: dict[str, str]


LORA = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}
RSLORA = ADAPTERS["rslora"].model_construct(alpha=ALPHA, rank=R)
CASES = {
    "rslora": Case(
        lambda linear: LoraLinear(linear, R, RSLORA.numerator),  # type: ignore[attr-defined]
        peft.LoraConfig(r=R, lora_alpha=ALPHA, use_rslora=True, target_modules=["0"]),
        LORA,
    ),
    "pissa": Case(
        lambda linear: PissaLinear(linear, R),
        peft.LoraConfig(r=R, lora_alpha=R, init_lora_weights="pissa", target_modules=["0"]),
        LORA,
    ),
    "miss": Case(
        lambda linear: MissLinear(linear, R),
        peft.MissConfig(r=R, target_modules=["0"]),
        {"shard": "miss_block.default"},
    ),
    "miss, last copy cut": Case(
        lambda linear: MissLinear(linear, 5),
        peft.MissConfig(r=5, target_modules=["0"]),
        {"shard": "miss_block.default"},
    ),
    "vera": Case(
        lambda linear: VeraLinear(linear, SharedPair(R, I + 3, O + 2), 0.1),
        peft.VeraConfig(r=R, target_modules=["0"]),
        {"d": "vera_lambda_d.default", "b": "vera_lambda_b.default"},
    ),
    "oft": Case(
        lambda linear: OftLinear(linear, 4),
        peft.OFTConfig(oft_block_size=4, use_cayley_neumann=True, target_modules=["0"]),
        {"skew": "oft_R.default.weight"},
    ),
    "ia3, output": Case(
        lambda linear: Ia3Linear(linear, on_input=False),
        peft.IA3Config(target_modules=["0"], feedforward_modules=[]),
        {"factor": "ia3_l.default"},
    ),
    "ia3, input": Case(
        lambda linear: Ia3Linear(linear, on_input=True),
        peft.IA3Config(target_modules=["0"], feedforward_modules=["0"]),
        {"factor": "ia3_l.default"},
    ),
}


def layers(case: Case, bias: bool) -> tuple[AdaptedLinear, nn.Module]:
    """Our layer, changed as by training, and peft's of the same values."""
    torch.manual_seed(1)
    linear = nn.Linear(I, O, bias=bias)
    if case.config.peft_type == "VERA":  # peft sizes its pair by the largest layer
        larger = nn.Sequential(nn.Linear(I, O, bias=bias), nn.Linear(I + 3, O + 2))
        case.config.target_modules = ["0", "1"]
    else:
        larger = nn.Sequential(nn.Linear(I, O, bias=bias))
    larger[0].load_state_dict(linear.state_dict())
    ours = case.ours(linear)
    theirs = peft.get_peft_model(larger, case.config).base_model.model[0]
    if isinstance(ours, PissaLinear):
        ours.initialise()
    if isinstance(ours, VeraLinear):
        ours.pair.a, ours.pair.b = theirs.vera_A["default"], theirs.vera_B["default"]
    with torch.no_grad():
        for one, other in case.names.items():
            parameter = ours.get_parameter(one)
            parameter += 0.3 * torch.randn_like(parameter)
            found = theirs.get_parameter(other)
            found.copy_(parameter.view_as(found))
    if bias:
        theirs.base_layer.bias.requires_grad_(True)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_equals_peft_s(name: str, bias: bool) -> None:
    case = CASES[name]
    ours, theirs = layers(case, bias)
    names = case.names | ({"bias": "base_layer.bias"} if bias else {})
    assert {name for name, one in ours.named_parameters() if one.requires_grad} == set(names)
    outcomes = []
    for layer, where in ((ours, {name: name for name in names}), (theirs, names)):
        x = torch.randn(5, 2, I, generator=torch.Generator().manual_seed(2)).requires_grad_()
        y = layer(x)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
        wanted = [x, *(layer.get_parameter(one) for one in where.values())]
        gradients = torch.autograd.grad((y * weights).sum(), wanted)
        outcomes.append([y, *(gradient.flatten() for gradient in gradients)])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one.view_as(other), other, atol=1e-5, rtol=1e-5)
    theirs.merge()
    merged = ours.merged()
    torch.testing.assert_close(merged.weight, theirs.base_layer.weight, atol=1e-6, rtol=1e-5)
    if bias:
        torch.testing.assert_close(merged.bias, theirs.base_layer.bias, atol=1e-6, rtol=1e-5)


def test_pissa_starts_from_the_principal_triplets() -> None:
    """As in the paper: of all updates of rank r, B A is the best approximation of W0, and its factors share the singular values."""
    torch.manual_seed(0)
    layer = PissaLinear(nn.Linear(I, O), R)
    layer.initialise()
    a, b, weight = layer.lora_a.detach(), layer.lora_b.detach(), layer.weight.detach()
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.matrix_norm(weight - b @ a), values[R:].norm(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(a @ a.T, torch.diag(values[:R]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(b.T @ b, torch.diag(values[:R]), atol=1e-6, rtol=1e-5)


def test_a_rotation_is_nearly_orthogonal() -> None:
    layer = OftLinear(nn.Linear(I, O), 4)
    layer.skew.data.normal_(std=0.01)
    rotation = layer.rotation().detach()
    assert float((rotation - torch.eye(4)).abs().max()) > 0.01
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(4).expand_as(rotation), atol=1e-5, rtol=0)


def test_lora_plus_has_peft_s_rates() -> None:
    base = nn.Sequential(nn.Linear(I, O))
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0"]))
    optimizers = pytest.importorskip("peft.optimizers")
    groups = optimizers.create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16).param_groups
    expected = {names_of(theirs, group["params"]): group["lr"] for group in groups if group["params"]}
    model = adapt(tiny_model(), "lora_plus", train_rest=False)
    found = {}
    for group in parameter_groups(model, Recipe("sequential", 1, 1, 8, 5e-4, 1e-3)):
        found[names_of(model, group["params"])] = group["lr"]
    assert expected == {frozenset({"A"}): 1e-3, frozenset({"B"}): 16e-3}
    assert found == {**expected, frozenset({"head"}): 5e-4}


def names_of(model: nn.Module, parameters: list[Tensor]) -> frozenset[str]:
    """What the parameters are, A, B or a head's."""
    kinds = {"lora_a": "A", "lora_A": "A", "lora_b": "B", "lora_B": "B", "heads": "head"}
    names = [name for name, one in model.named_parameters() if any(one is other for other in parameters)]
    return frozenset(what for name in names for key, what in kinds.items() if key in name.split("."))
