"""DoRA layers against peft, against autograd of equation 2, and merged."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout, Noise
from mtbert.model.fused import finished
from mtbert.peft import norm
from mtbert.peft.dora import DoraLinear

O, I, R, ALPHA = 7, 5, 3, 6.0  # noqa: E741


def adapted(
    *,
    bias: bool = True,
    dropout: nn.Module | None = None,
    exact: bool = True,
    trained: bool = True,
    dtype: torch.dtype = torch.float32,
) -> DoraLinear:
    """A layer in the middle of training: B is not zero, m is not the norm."""
    torch.manual_seed(1)
    layer = DoraLinear(nn.Linear(I, O, bias=bias), R, ALPHA, dropout, exact)  # type: ignore[arg-type]
    if trained:
        layer.lora_b.data.normal_()
        layer.magnitude.data.mul_(torch.rand(O) + 0.5)
    return layer.to(dtype)


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, 2, I, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()


def naive(layer: DoraLinear, x: Tensor) -> Tensor:
    """Equation 2 word by word: m (W0 + s B A) / ||W0 + s B A||, the norm taken over each row."""
    direction = layer.weight + ALPHA / R * layer.lora_b @ layer.lora_a
    return F.linear(x, layer.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True), layer.bias)


def gradients(y: Tensor, layer: DoraLinear, x: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    wanted = {"x": x, "m": layer.magnitude, "a": layer.lora_a, "b": layer.lora_b, "bias": layer.bias}
    wanted = {name: tensor for name, tensor in wanted.items() if tensor is not None}
    found = torch.autograd.grad((y * weights).sum(), list(wanted.values()))
    return dict(zip(wanted, found, strict=True))


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


def test_a_fresh_layer_computes_what_the_linear_layer_did() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(I, O)
    layer = DoraLinear(linear, R, ALPHA)
    x = torch.randn(50, I)
    torch.testing.assert_close(layer(x), linear(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.magnitude.data, linear.weight.norm(dim=1))
    assert not layer.lora_b.any()
    assert bool(layer.lora_a.any())
    assert layer.bias is linear.bias
    assert layer.weight.data_ptr() == linear.weight.data_ptr(), "the weight is taken over, not copied"
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    assert trained == {"magnitude", "lora_a", "lora_b", "bias"}
    assert layer.exact_norm, "the paper's equation is the default"


def test_a_starts_as_peft_starts_it() -> None:
    """Uniform within 1 / sqrt(I), as nn.Linear starts."""
    torch.manual_seed(0)
    layer = DoraLinear(nn.Linear(400, 8), 100, ALPHA)
    assert 0.99 / 20 < float(layer.lora_a.detach().abs().max()) <= 1 / 20
    assert float(layer.lora_a.detach().std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_exact_norm_is_equation_2_and_its_gradient(bias: bool, trained: bool, training: bool) -> None:
    layer = adapted(bias=bias, trained=trained, dtype=torch.float64).train(training)
    x = inputs(torch.float64)
    torch.testing.assert_close(layer(x), naive(layer, x), atol=1e-12, rtol=0)
    assert_same(gradients(layer(x), layer, x), gradients(naive(layer, x), layer, x), 1e-10)


def test_a_detached_norm_has_another_gradient() -> None:
    """So that the next test can tell the two from each other."""
    exact, detached, x = adapted(), adapted(exact=False), inputs()
    torch.testing.assert_close(exact(x), detached(x))
    ours, other = gradients(exact(x), exact, x), gradients(detached(x), detached, x)
    assert float((ours["b"] - other["b"]).abs().max()) > 1e-2
    torch.testing.assert_close(ours["m"], other["m"])


def peft_layer(layer: DoraLinear, dropout: float = 0.0) -> nn.Module:
    """peft's DoRA layer with our layer's values."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=["0"], use_dora=True)
    theirs = peft.get_peft_model(nn.Sequential(nn.Linear(I, O, bias=layer.bias is not None)), config).base_model.model[
        0
    ]
    with torch.no_grad():
        theirs.base_layer.weight.copy_(layer.weight)
        if layer.bias is not None:
            theirs.base_layer.bias.copy_(layer.bias)
        theirs.lora_A["default"].weight.copy_(layer.lora_a)
        theirs.lora_B["default"].weight.copy_(layer.lora_b)
        theirs.lora_magnitude_vector["default"].weight.copy_(layer.magnitude)
    if layer.bias is not None:
        theirs.base_layer.bias.requires_grad_(True)
    return theirs


def peft_gradients(theirs: nn.Module, y: Tensor, x: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    wanted = {
        "x": x,
        "m": theirs.lora_magnitude_vector["default"].weight,
        "a": theirs.lora_A["default"].weight,
        "b": theirs.lora_B["default"].weight,
        "bias": theirs.base_layer.bias,
    }
    wanted = {name: tensor for name, tensor in wanted.items() if tensor is not None}
    return dict(zip(wanted, torch.autograd.grad((y * weights).sum(), list(wanted.values())), strict=True))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_equals_peft(bias: bool, trained: bool, training: bool) -> None:
    layer = adapted(bias=bias, trained=trained, exact=False).train(training)
    theirs = peft_layer(layer).train(training)
    x = inputs()
    torch.testing.assert_close(layer(x), theirs(x), atol=1e-5, rtol=1e-5)
    assert_same(gradients(layer(x), layer, x), peft_gradients(theirs, theirs(x), x))


class FixedMask(nn.Module):
    """A dropout whose mask is known."""

    p = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(8)) < 0.5)


@pytest.mark.parametrize("bias", [True, False])
def test_with_dropout_equals_peft_for_the_same_mask(bias: bool) -> None:
    layer = adapted(bias=bias, exact=False, dropout=FixedMask()).train()
    theirs = peft_layer(layer, dropout=0.5).train()
    theirs.lora_dropout["default"] = FixedMask()
    x = inputs()
    torch.testing.assert_close(layer(x), theirs(x), atol=1e-5, rtol=1e-5)
    assert_same(gradients(layer(x), layer, x), peft_gradients(theirs, theirs(x), x))
    assert float((layer(x) - naive(layer, x)).detach().abs().max()) > 1e-2, "the mask does something"


@pytest.mark.parametrize("exact", [True, False])
def test_with_dropout_equals_the_authors_formula(exact: bool) -> None:
    layer = adapted(exact=exact, dropout=FixedMask(), dtype=torch.float64).train()
    x = inputs(torch.float64)
    dropped = FixedMask()(x)
    norm = (layer.weight + ALPHA / R * layer.lora_b @ layer.lora_a).norm(dim=1)
    factor = layer.magnitude / (norm if exact else norm.detach())
    update = ALPHA / R * dropped @ layer.lora_a.T @ layer.lora_b.T
    expected = x @ layer.weight.T + (factor - 1) * (dropped @ layer.weight.T) + factor * update + layer.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    assert_same(gradients(layer(x), layer, x), gradients(expected, layer, x), 1e-10)


def test_dropout_is_off_in_eval() -> None:
    layer = adapted(dropout=Dropout(0.5, Noise())).eval()
    x = inputs()
    torch.testing.assert_close(layer(x), naive(layer, x))


@pytest.mark.parametrize("bias", [True, False])
def test_merged_equals_unmerged(bias: bool) -> None:
    layer, x = adapted(bias=bias).eval(), inputs()
    merged = layer.merged()
    assert type(merged) is nn.Linear
    assert (merged.bias is None) != bias
    torch.testing.assert_close(merged(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("zero", ["base row", "whole base", "row cancelled by the update"])
def test_a_zero_row_gives_no_nan(zero: str, exact: bool) -> None:
    linear = nn.Linear(I, O)
    with torch.no_grad():
        linear.weight[2 if zero == "base row" else slice(None)] = 0
    layer = DoraLinear(linear, R, ALPHA, exact_norm=exact)
    if zero == "row cancelled by the update":
        with torch.no_grad():
            layer.lora_a.zero_()[0, 0] = 1
            layer.lora_b.zero_()[:, 0] = 1
            layer.weight.zero_()[:, 0] = -ALPHA / R
            layer.magnitude.fill_(1)
    x = inputs()
    y = layer(x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(layer.merged()(x)).all()
    for name, gradient in gradients(y, layer, x).items():
        assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize("size", [1e-13, 1e-9])
def test_a_row_counts_as_zero_below_1e_12_and_only_there(size: float) -> None:
    """Below, the norm is held and passes no gradient on; above, equation 2 holds however small the row is."""
    torch.manual_seed(6)
    layer = DoraLinear(nn.Linear(I, O, dtype=torch.float64), R, ALPHA).double()
    layer.weight.data.mul_(size)
    layer.magnitude.data.fill_(1e-12)
    x = inputs(torch.float64)
    if size < 1e-12:
        torch.testing.assert_close(layer.norm(), torch.full((O,), 1e-12, dtype=torch.float64), rtol=1e-9, atol=0)
        found = gradients(layer(x), layer, x)
        layer.exact_norm = False
        assert_same(found, gradients(layer(x), layer, x), 0)
    else:
        torch.testing.assert_close(layer(x), naive(layer, x), atol=1e-18, rtol=1e-9)
        theirs = gradients(naive(layer, x), layer, x)
        for name, gradient in gradients(layer(x), layer, x).items():
            torch.testing.assert_close(gradient, theirs[name], atol=0, rtol=1e-6, msg=name)


def test_what_is_kept_of_the_base_weight_is_made_once_and_follows_its_type() -> None:
    layer, x = adapted(), inputs()
    layer(x)
    kept = layer._base_squared
    layer(x)
    assert layer._base_squared is kept
    layer.double()
    torch.testing.assert_close(layer(x.double()), naive(layer, x.double()), atol=1e-12, rtol=0)


def test_the_norm_follows_loaded_weights() -> None:
    layer, other = adapted(), adapted()
    other.weight.data = torch.randn(O, I)
    x = inputs()
    layer(x)  # fills what is kept of the base weight
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer.norm(), (other.weight + ALPHA / R * other.lora_b @ other.lora_a).norm(dim=1))
    torch.testing.assert_close(layer(x), naive(layer, x))


def test_the_norm_follows_weights_loaded_into_the_model_around_it() -> None:
    torch.manual_seed(4)
    outer = nn.Sequential(nn.Sequential(adapted()))
    x = inputs()
    outer(x)
    outer.load_state_dict({name: torch.randn_like(value) for name, value in outer.state_dict().items()})
    torch.testing.assert_close(outer(x), naive(outer[0][0], x))  # type: ignore[index]


def test_training_after_a_look_in_inference_mode() -> None:
    layer, x = adapted(), inputs()
    with torch.inference_mode():
        layer(x)
    assert_same(gradients(layer(x), layer, x), gradients(naive(layer, x), layer, x), 1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_norm_is_fp32_under_bf16(dropout: float) -> None:
    layer, x = adapted(dropout=Dropout(dropout, Noise())), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        norm, y = layer.norm(), layer(x)
    assert norm.dtype == torch.float32
    torch.testing.assert_close(norm, layer.norm(), atol=0, rtol=0)
    assert y.dtype == torch.bfloat16, "as nn.Linear gives it"
    if dropout == 0:
        torch.testing.assert_close(y.float(), layer(x), atol=0.1, rtol=0.05)


def without_norm(wrong: Callable[[DoraLinear], Tensor]) -> Callable[..., object]:
    return lambda layer, monkeypatch: monkeypatch.setattr(norm, "row_norm", lambda *_: wrong(layer))


PLANTED: dict[str, Callable[..., object]] = {
    "unscaled": lambda layer, _: setattr(layer, "scale", 1.0),
    "alpha forgotten": lambda layer, _: setattr(layer, "scale", 1 / R),
    "norm of the base": without_norm(lambda layer: layer.weight.norm(dim=1)),
    "norm over outputs": without_norm(
        lambda layer: (layer.weight + ALPHA / R * layer.lora_b @ layer.lora_a).norm(dim=0).mean().expand(O)
    ),
    "no magnitude": lambda layer, _: layer.magnitude.data.copy_(layer.norm().detach()),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_comparison_with_peft_sees_a_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = adapted(exact=False), inputs()
    theirs = peft_layer(layer)
    PLANTED[bug](layer, monkeypatch)
    assert float((layer(x) - theirs(x)).detach().abs().max()) > 1e-2


def three_layers(dropout: float = 0.0) -> list[DoraLinear]:
    """Of unlike values, in the middle of training."""
    torch.manual_seed(6)
    layers = [DoraLinear(nn.Linear(64, 48), 4, 8.0, Dropout(dropout, Noise())) for _ in range(3)]
    for layer in layers:
        layer.lora_b.data.normal_(std=0.05)
        layer.magnitude.data.mul_(torch.rand(48) + 0.5)
    return layers


@pytest.mark.parametrize(("bf16", "dropout"), [(True, 0.0), (False, 0.0), (True, 0.5)])
def test_layers_side_by_side_are_the_layers_one_by_one(bf16: bool, dropout: float) -> None:
    """Outputs and every gradient; with another layer's A, or B, the difference is an order larger than the tolerance."""
    outcomes = []
    for joined in (True, False):
        layers = three_layers(dropout)
        x = torch.randn(100, 64, generator=torch.Generator().manual_seed(7)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            y = (
                finished(DoraLinear.side_by_side(layers, x))
                if joined
                else torch.cat([layer(x) for layer in layers], -1)
            )
        (y.float() * torch.randn(100, 144, generator=torch.Generator().manual_seed(8))).sum().backward()
        outcomes.append([y.detach().float(), x.grad, *[p.grad for layer in layers for p in layer.parameters()]])
    for ours, theirs in zip(*outcomes, strict=True):
        if theirs is not None:
            assert ours is not None
            torch.testing.assert_close(ours, theirs, atol=0.02 * float(theirs.abs().max()), rtol=0.02)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_bf16_products_leave_magnitudes_their_digits(bias: bool, exact: bool) -> None:
    """Under autocast every gradient is that of fp32 to bf16's precision, and a magnitude's smallest steps still count."""
    torch.manual_seed(5)
    layer = DoraLinear(nn.Linear(64, 48, bias=bias), 4, 8.0, exact_norm=exact)
    layer.lora_b.data.normal_(std=0.05)
    x = torch.randn(100, 64, requires_grad=True)
    plain = gradients(layer(x), layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    for name, gradient in gradients(y, layer, x).items():
        assert gradient.dtype == torch.float32, name
        torch.testing.assert_close(
            gradient, plain[name], atol=0.02 * float(plain[name].abs().max()), rtol=0.02, msg=name
        )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = layer(x).float()
        layer.magnitude.mul_(1 + 2**-11)
        moved = (layer(x).float() - before).abs()
    assert bool((moved > 0).any())


def test_a_bf16_copy_of_the_base_weight_is_made_once_and_follows_loaded_weights() -> None:
    layer, x = adapted(), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
        copy = layer._base_wide
        assert copy is not None
        layer(x)
        assert layer._base_wide is copy
        layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(x).float(), naive(layer, x).float(), atol=0.5, rtol=0.05)
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.float16):
        assert layer(x).dtype == torch.float16, "another type has another copy"


def test_weights_loaded_into_one_of_several_layers_reach_their_product() -> None:
    layers, x = three_layers(), torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        finished(DoraLinear.side_by_side(layers, x))
        layers[2].load_state_dict({k: v.flip(0) if k == "weight" else v for k, v in layers[2].state_dict().items()})
        joined = finished(DoraLinear.side_by_side(layers, x)).float()
    torch.testing.assert_close(joined[:, 96:], naive(layers[2], x), atol=0.1, rtol=0.05)
