"""The joint product of LoRA and DoRA layers against their own forward, and the cache of frozen weights."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtbert.fast.cpu import build
from mtbert.fast.cpu.adapters import Bases, adapted
from mtbert.fast.cpu.passes import Product
from mtbert.fast.cpu.products import Products
from mtbert.model.dropout import Dropout, Noise
from mtbert.peft.dora import TINY, DoraLinear
from mtbert.peft.lora import LoraLinear

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason="needs g++")

LAYERS = {"lora": LoraLinear, "dora": DoraLinear}
CASES = [("lora", {}), ("dora", {"exact_norm": True}), ("dora", {"exact_norm": False})]
THREE = pytest.mark.parametrize(("method", "own"), CASES, ids=["lora", "dora", "dora, norm detached"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def layers_of(
    method: str = "dora", count: int = 3, outputs: int = 48, inputs: int = 32, rank: int = 4, **own: Any
) -> list[LoraLinear]:
    """Layers of different values, as in training; W0 and A are exact in bf16."""
    torch.manual_seed(count + outputs + inputs + rank)
    layers = [LAYERS[method](nn.Linear(inputs, outputs), rank, 2.0 * rank, **own) for _ in range(count)]
    for layer in layers:
        layer.lora_b.data.normal_(std=0.2)
        for weight in (layer.weight, layer.lora_a):
            weight.data.copy_(weight.data.bfloat16())
        if isinstance(layer, DoraLinear):
            layer.magnitude.data.mul_(torch.rand(outputs) + 0.5)
    return layers


def inputs_of(layers: Sequence[LoraLinear], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(11, layers[0].weight.shape[1], generator=torch.Generator().manual_seed(7)).to(dtype)


def computed(product: Product | None) -> Tensor:
    assert product is not None and product.bias is not None
    z = product.z if product.factor is None else product.z * product.factor
    return z + product.bias


def outcome(layers: Sequence[LoraLinear], x: Tensor, joined: bool) -> dict[str, Tensor]:
    """The output and every gradient, from the joint product or, in fp64, from the layers' own forward."""
    parameters = {f"{n}.{name}": p for n, layer in enumerate(layers) for name, p in layer.named_parameters()}
    if joined:
        x = x.clone().requires_grad_()
        y = computed(adapted(layers, x, Bases()))
    else:
        x = x.double().requires_grad_()
        layers = [layer.double() for layer in layers]
        y = torch.cat([layer(x) for layer in layers], 1)
    trained = {"x": x} | {name: p for name, p in parameters.items() if p.requires_grad}
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(8)).to(y.dtype)
    found = torch.autograd.grad((y * cotangent).sum(), list(trained.values()))
    return {"y": y.detach()} | dict(zip(trained, found, strict=True))


@DTYPES
@pytest.mark.parametrize(
    ("count", "outputs", "inputs", "rank"), [(1, 16, 16, 1), (3, 48, 32, 8), (2, 64, 48, 20), (1, 144, 16, 16)]
)
@THREE
def test_the_product_equals_the_layers_side_by_side(
    method: str, own: dict[str, bool], count: int, outputs: int, inputs: int, rank: int, dtype: torch.dtype
) -> None:
    """With all gradients; using another layer's A or B would differ by ten times the tolerance."""
    layers = layers_of(method, count, outputs, inputs, rank, **own)
    x = inputs_of(layers, dtype)
    ours = outcome(layers, x, True)
    assert all(gradient.dtype == torch.float32 for name, gradient in ours.items() if name not in ("x", "y"))
    for name, expected in outcome(layers, x, False).items():
        tolerance = 2e-5 if dtype == torch.float32 else 2e-2
        size = tolerance * float(expected.abs().max())
        torch.testing.assert_close(ours[name].double(), expected, rtol=0, atol=size, msg=name)


def factor_of(layers: Sequence[LoraLinear], dtype: torch.dtype) -> Tensor:
    product = adapted(layers, inputs_of(layers, dtype), Bases())
    assert product is not None and product.factor is not None
    return product.factor.detach()


def test_the_bf16_kernel_rounds_the_factor_less_than_bf16_does() -> None:
    """Its sums are fp32, so only s B is rounded."""
    layers = layers_of(count=2, outputs=64, inputs=64, rank=16)
    for layer in layers:
        layer.lora_b.data.copy_(layer.lora_b.data.bfloat16())
    exact = torch.cat([layer.magnitude / layer.double().norm() for layer in layers])  # type: ignore[operator]
    for layer in layers:
        layer.float()
    torch.testing.assert_close(factor_of(layers, torch.bfloat16).double(), exact, rtol=1e-6, atol=0)


def test_a_layer_beside_others_and_on_more_threads_has_the_same_factor_to_the_last_bit() -> None:
    layers = layers_of()
    together = factor_of(layers, torch.bfloat16)
    assert torch.equal(torch.cat([factor_of([layer], torch.bfloat16) for layer in layers]), together)
    try:
        torch.set_num_threads(3)
        assert torch.equal(factor_of(layers, torch.bfloat16), together)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("row", [0.0, 1e-13])
def test_the_norm_of_a_vanishing_row_is_clamped_without_a_gradient(row: float) -> None:
    layers = layers_of(count=1, outputs=16, inputs=16)
    (layer,) = layers
    layer.weight.data[3] *= row
    layer.lora_b.data[3] *= row
    product = adapted(layers, inputs_of(layers), Bases())
    assert product is not None and product.factor is not None
    torch.testing.assert_close(product.factor[3], layer.magnitude[3] / TINY)  # type: ignore[operator]
    found = torch.autograd.grad(product.factor.sum(), [layer.lora_a, layer.lora_b], allow_unused=True)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert not found[1][3].any()


@pytest.mark.parametrize("where", ["weight", "lora_b", "magnitude"])
def test_nan_stays_nan(where: str) -> None:
    layers = layers_of(count=1)
    getattr(layers[0], where).data[5] = math.nan
    found = outcome(layers, inputs_of(layers), True)
    assert bool(found["y"][:, 5].isnan().all()) and int(found["y"].isnan().any(0).sum()) == 1
    assert bool(found["0.lora_a"].isnan().any()), "it reaches A, which all rows share"
    assert bool(found["0.lora_b"][5].isnan().all())


def test_weights_changed_between_forward_and_backward_are_refused() -> None:
    layers = layers_of()
    y = computed(adapted(layers, inputs_of(layers), Bases()))
    with torch.no_grad():
        layers[1].lora_b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_forward_does_not_change_the_first_one_s_backward() -> None:
    """Both write s B to the same memory, with equal values as long as the weights do not change."""
    layers, bases = layers_of(), Bases()
    x, parameters = inputs_of(layers), [layer.lora_a for layer in layers]
    y = computed(adapted(layers, x, bases))
    alone = torch.autograd.grad(y.sum(), parameters, retain_graph=True)
    with torch.no_grad():
        adapted(layers, 2 * x, bases)
    for mine, other in zip(torch.autograd.grad(y.sum(), parameters), alone, strict=True):
        assert torch.equal(mine, other)


@DTYPES
def test_bases_are_cached_until_weights_are_loaded(dtype: torch.dtype) -> None:
    layers, bases = layers_of(), Bases()
    x = inputs_of(layers, dtype)
    extended, squares = bases.of(layers, dtype)
    adapted(layers, x, bases)
    assert bases.of(layers, dtype)[0] is extended and bases.of(layers, dtype)[1] is squares
    layers[2].load_state_dict(layers_of(inputs=32, rank=4, count=1)[0].state_dict())
    assert bases.of(layers, dtype)[0] is not extended
    assert torch.equal(computed(adapted(layers, x, bases)), computed(adapted(layers, x, Bases())))
    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    assert bases.of(layers, other)[0].dtype == other
    assert bases.of(layers[:1], dtype)[0].shape == (48, 36), "a layer has another base among other layers"


def test_bases_from_inference_mode_can_be_trained_with_and_those_of_inference_weights_are_not_cached() -> None:
    layers, bases = layers_of(), Bases()
    with torch.inference_mode():
        adapted(layers, inputs_of(layers), bases)
        frozen = layers_of()
        first, _ = bases.of(frozen, torch.float32)
        frozen[0].weight.add_(1)  # torch does not count it
        second, _ = bases.of(frozen, torch.float32)
        assert not torch.equal(first, second)
    computed(adapted(layers, inputs_of(layers), bases)).sum().backward()
    assert layers[0].lora_a.grad is not None


@pytest.mark.parametrize("method", LAYERS)
def test_with_dropout_on_the_update_s_input_the_layers_are_called(method: str) -> None:
    layers = layers_of(method, dropout=Dropout(0.5, Noise()))
    x = inputs_of(layers)
    assert adapted(layers, x, Bases()) is None
    for layer in layers:
        layer.dropout.noise.reseed(1, 2)
    found = Products()(layers, x)
    for layer in layers:
        layer.dropout.noise.reseed(1, 2)
    assert found.factor is None and found.bias is None
    assert torch.equal(found.z, torch.cat([layer(x) for layer in layers], 1))
    for layer in layers:
        layer.eval()
    assert adapted(layers, x, Bases()) is not None


class Doubled(nn.Module):
    """An adapter that is not in PRODUCTS."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.linear(x)


def test_layers_of_an_unknown_type_are_called_one_by_one() -> None:
    class Special(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * super().forward(x)

    x = torch.randn(5, 32)
    for layers in ([Doubled(nn.Linear(32, 16)) for _ in range(3)], [Special(32, 16)]):
        found = Products()(layers, x)
        assert found.factor is None and found.bias is None
        assert torch.equal(found.z, torch.cat([layer(x) for layer in layers], 1))
