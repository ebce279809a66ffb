"""LoRA and DoRA layers against their formulas in fp64, against peft's layers, and merged."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout, Noise
from mtbert.peft.dora import TINY, DoraLinear
from mtbert.peft.lora import LoraLinear

O, I, R, ALPHA = 7, 5, 3, 6.0  # noqa: E741
LAYERS = {"lora": LoraLinear, "dora": DoraLinear}
BOTH = pytest.mark.parametrize("method", LAYERS)


class FixedMask(Dropout):
    """A dropout whose mask is known."""

    def __init__(self) -> None:
        super().__init__(0.5, Noise())

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        return x * 2 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(8)) < 0.5)


def adapted(
    method: str,
    bias: bool = True,
    dropout: Dropout | None = None,
    trained: bool = True,
    dtype: torch.dtype = torch.float32,
    **own: bool,
) -> LoraLinear:
    """A layer as in training: B is not zero, and m is not the norm."""
    torch.manual_seed(1)
    layer = LAYERS[method](nn.Linear(I, O, bias=bias), R, ALPHA, dropout, **own)
    if trained:
        layer.lora_b.data.normal_()
        if isinstance(layer, DoraLinear):
            layer.magnitude.data.mul_(torch.rand(O) + 0.5)
    return layer.to(dtype)


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, 2, I, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()


def whole(layer: LoraLinear) -> Tensor:
    return layer.weight + ALPHA / R * layer.lora_b @ layer.lora_a


def formula(layer: LoraLinear, x: Tensor, dropped: Tensor | None = None) -> Tensor:
    """LoRA's W' x, or equation 2 as printed, m (W0 + s B A) / ||W0 + s B A||, with the norm of each row.

    With dropout on the update's input DoRA is the authors': W0 x + (m / ||.|| - 1) W0 d(x) + (m / ||.||) s B A d(x).
    """
    update = ALPHA / R * F.linear(x if dropped is None else dropped, layer.lora_b @ layer.lora_a)
    if not isinstance(layer, DoraLinear):
        return F.linear(x, layer.weight, layer.bias) + update
    norm = whole(layer).norm(dim=1)
    factor = layer.magnitude / (norm if layer.exact_norm else norm.detach())
    if dropped is None:
        return F.linear(x, factor[:, None] * whole(layer), layer.bias)
    return F.linear(x, layer.weight, layer.bias) + (factor - 1) * F.linear(dropped, layer.weight) + factor * update


def gradients(y: Tensor, layer: LoraLinear, x: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    wanted = {"x": x} | {name: weight for name, weight in layer.named_parameters() if weight.requires_grad}
    return dict(zip(wanted, torch.autograd.grad((y * weights).sum(), list(wanted.values())), strict=True))


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


@BOTH
def test_a_new_layer_equals_its_linear_layer(method: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(I, O)
    layer = LAYERS[method](linear, R, ALPHA)
    x = torch.randn(50, I)
    torch.testing.assert_close(layer(x), linear(x), atol=1e-6, rtol=0)
    assert not layer.lora_b.any() and bool(layer.lora_a.any())
    assert layer.bias is linear.bias
    assert layer.weight.data_ptr() == linear.weight.data_ptr(), "the weight is taken over, not copied"
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    assert trained == {*layer.added, "bias"}
    if isinstance(layer, DoraLinear):
        torch.testing.assert_close(layer.magnitude.data, linear.weight.norm(dim=1))
        assert layer.exact_norm, "the paper's equation is the default"


def test_a_is_initialised_as_in_peft() -> None:
    """Uniform within 1 / sqrt(I), like nn.Linear."""
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(400, 8), 100, ALPHA)
    assert 0.99 / 20 < float(layer.lora_a.detach().abs().max()) <= 1 / 20
    assert float(layer.lora_a.detach().std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


CASES = [("lora", {}), ("dora", {"exact_norm": True}), ("dora", {"exact_norm": False})]
THREE = pytest.mark.parametrize(("method", "own"), CASES, ids=["lora", "dora", "dora, norm detached"])


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("dropout", [None, FixedMask()], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("bias", [True, False])
@THREE
def test_equals_the_formula_with_all_gradients(
    method: str, own: dict[str, bool], bias: bool, dropout: Dropout | None, trained: bool
) -> None:
    layer, x = adapted(method, bias, dropout, trained, torch.float64, **own), inputs(torch.float64)
    expected = formula(layer, x, None if dropout is None else dropout(x))
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    assert_same(gradients(layer(x), layer, x), gradients(expected, layer, x), 1e-10)


def test_the_comparison_notices_a_detached_norm_and_a_missing_mask() -> None:
    exact, detached, masked, x = (
        adapted("dora"), adapted("dora", exact_norm=False), adapted("dora", dropout=FixedMask()), inputs(),
    )  # fmt: skip
    torch.testing.assert_close(exact(x), detached(x))
    ours, other = gradients(exact(x), exact, x), gradients(detached(x), detached, x)
    assert float((ours["lora_b"] - other["lora_b"]).abs().max()) > 1e-2
    torch.testing.assert_close(ours["magnitude"], other["magnitude"])
    assert float((masked(x) - exact(x)).detach().abs().max()) > 1e-2


def peft_layer(layer: LoraLinear, dropout: float = 0.0) -> nn.Module:
    """peft's layer with our layer's values."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=["0"], use_dora=isinstance(layer, DoraLinear)
    )
    base = nn.Linear(I, O, bias=layer.bias is not None)
    theirs: nn.Module = peft.get_peft_model(nn.Sequential(base), config).base_model.model[0]
    with torch.no_grad():
        for name, parameter in peft_names(theirs).items():
            parameter.copy_(layer.get_parameter(name))
        theirs.base_layer.weight.copy_(layer.weight)
    if layer.bias is not None:
        theirs.base_layer.bias.requires_grad_(True)
    return theirs


def peft_names(theirs: nn.Module) -> dict[str, nn.Parameter]:
    """peft's trained parameters by our names."""
    found = {"lora_a": theirs.lora_A["default"].weight, "lora_b": theirs.lora_B["default"].weight}
    if theirs.lora_magnitude_vector:
        found["magnitude"] = theirs.lora_magnitude_vector["default"].weight
    return found if theirs.base_layer.bias is None else found | {"bias": theirs.base_layer.bias}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("bias", [True, False])
@BOTH
def test_equals_peft(method: str, bias: bool, dropout: float) -> None:
    """With the same mask; in peft's DoRA the norm is detached."""
    own = {"exact_norm": False} if method == "dora" else {}
    layer = adapted(method, bias, FixedMask() if dropout else None, **own).train()
    theirs, x = peft_layer(layer, dropout).train(), inputs()
    if dropout:
        theirs.lora_dropout["default"] = FixedMask()
    y, names = theirs(x), {"x": x} | peft_names(theirs)
    torch.testing.assert_close(layer(x), y, atol=1e-5, rtol=1e-5)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad((y * weights).sum(), list(names.values()))
    assert_same(gradients(layer(x), layer, x), dict(zip(names, found, strict=True)))


@BOTH
def test_dropout_is_off_in_eval(method: str) -> None:
    layer, x = adapted(method, dropout=Dropout(0.5, Noise())), inputs()
    assert not torch.allclose(layer(x), formula(layer, x))
    torch.testing.assert_close(layer.eval()(x), formula(layer, x))


@pytest.mark.parametrize("bias", [True, False])
@BOTH
def test_merged_equals_unmerged(method: str, bias: bool) -> None:
    layer, x = adapted(method, bias, FixedMask(), dtype=torch.float64), inputs(torch.float64)
    merged = layer.merged()
    assert type(merged) is nn.Linear
    assert (merged.bias is None) != bias
    torch.testing.assert_close(merged(x), formula(layer, x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("zero", ["base row", "whole base", "row cancelled by the update"])
def test_a_zero_row_gives_no_nan(zero: str, exact: bool) -> None:
    linear = nn.Linear(I, O)
    with torch.no_grad():
        linear.weight[2 if zero == "base row" else slice(None)] = 0
        layer = DoraLinear(linear, R, ALPHA, exact_norm=exact)
        if zero == "row cancelled by the update":
            layer.lora_a.zero_()[0, 0] = 1
            layer.lora_b.zero_()[:, 0] = 1
            layer.weight.zero_()[:, 0] = -ALPHA / R
            layer.magnitude.fill_(1)
    x = inputs()
    y = layer(x)
    for tensor in (y, layer.merged()(x), *gradients(y, layer, x).values()):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("size", [1e-13, 1e-9])
def test_a_norm_is_clamped_below_tiny_only(size: float) -> None:
    """Below, the norm is clamped and has no gradient; above, equation 2 holds however small the row is."""
    torch.manual_seed(6)
    layer = DoraLinear(nn.Linear(I, O, dtype=torch.float64), R, ALPHA).double()
    layer.weight.data.mul_(size)
    layer.magnitude.data.fill_(TINY)
    x = inputs(torch.float64)
    found = gradients(layer(x), layer, x)
    if size < TINY:
        torch.testing.assert_close(layer.norm(), torch.full((O,), TINY, dtype=torch.float64), rtol=1e-9, atol=0)
        layer.exact_norm = False
        assert_same(found, gradients(layer(x), layer, x), 0)
    else:
        torch.testing.assert_close(layer(x), formula(layer, x), atol=1e-18, rtol=1e-9)
        for name, expected in gradients(formula(layer, x), layer, x).items():
            torch.testing.assert_close(found[name], expected, atol=0, rtol=1e-6, msg=name)


@pytest.mark.parametrize("exact", [True, False])
def test_norm_and_magnitudes_are_fp32_under_autocast(exact: bool) -> None:
    """Gradients equal those of fp32 to bf16's precision, and a magnitude's smallest changes have an effect."""
    torch.manual_seed(5)
    layer = DoraLinear(nn.Linear(64, 48), 4, 8.0, exact_norm=exact)
    layer.lora_b.data.normal_(std=0.05)
    x = torch.randn(100, 64, requires_grad=True)
    plain, norm = gradients(layer(x), layer, x), layer.norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16, "as nn.Linear gives it"
        torch.testing.assert_close(layer.norm(), norm, atol=0, rtol=0)
    for name, gradient in gradients(y, layer, x).items():
        assert gradient.dtype == torch.float32, name
        size = float(plain[name].abs().max())
        torch.testing.assert_close(gradient, plain[name], atol=0.02 * size, rtol=0.02, msg=name)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = layer(x)
        layer.magnitude.mul_(1 + 2**-11)
        assert not torch.equal(layer(x), before)
