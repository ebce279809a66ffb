"""Each kernel against plain torch in fp64, also in bf16 and for values that training in the parity matrix does not reach."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.tokens import lay_out
from mtbert.fast.cpu import build, passes
from mtbert.fast.cpu.attention import Packed, PackedAttention
from mtbert.fast.cpu.call import Mask, mask
from mtbert.fast.cpu.passes import Gelu, Product, ResidualNorm
from mtbert.model.dropout import Dropout, Noise

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason="needs g++")

EPS = 1e-12
FP32, BF16 = torch.float32, torch.bfloat16
DTYPES = pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
# Of a result's largest value, at least of 1; a bf16 result may be a rounding of its own value off as well.
TOLERANCE = 1e-5


class Case(NamedTuple):
    """A kernel and its formula: functions of `inputs`; `cotangents` are the incoming gradients."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    inputs: dict[str, Tensor | None]
    cotangents: tuple[Tensor, ...]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pending(rows: int, width: int, dtype: torch.dtype, factor: bool, bias: bool) -> dict[str, Tensor | None]:
    """A product with its factor and bias."""
    return {
        "z": randn(rows, width, seed=1).to(dtype),
        "factor": 1 + 0.3 * randn(width, seed=2) if factor else None,
        "bias": randn(width, seed=3) if bias else None,
    }


def affine(z: Tensor, factor: Tensor | None, bias: Tensor | None) -> Tensor:
    y = z if factor is None else z * factor
    return y if bias is None else y + bias


def noise() -> Noise:
    one = Noise()
    one.reseed(5, 7)
    return one


def drawn(count: int, p: float) -> tuple[Mask, Tensor]:
    """The kernel's mask, and the factors of plain dropout."""
    return mask(Dropout(p, noise()), count), noise().keep(count, p) if p else torch.ones(count)


def norm_case(
    dtype: torch.dtype = FP32, factor: bool = True, bias: bool = True, p: float = 0.3, rows: int = 7, width: int = 48
) -> Case:
    words, keep = drawn(rows * width, p)
    inputs = {"x": randn(rows, width, seed=0), **pending(rows, width, dtype, factor, bias)}
    inputs |= {"gamma": 1 + 0.3 * randn(width, seed=4), "beta": randn(width, seed=5)}

    def ours(x: Tensor, z: Tensor, factor: Any, bias: Any, gamma: Tensor, beta: Tensor) -> Any:
        return ResidualNorm.apply(x, z, factor, bias, gamma, beta, EPS, words, torch.empty_like(x), None)

    def theirs(x: Tensor, z: Tensor, factor: Any, bias: Any, gamma: Tensor, beta: Tensor) -> Any:
        y = affine(z, factor, bias) * keep.to(z.dtype).view(z.shape)
        out = F.layer_norm(x + y, (width,), gamma, beta, EPS)
        return out if dtype == FP32 else (out, out * 1)

    cotangents = (randn(rows, width, seed=6), randn(rows, width, seed=7).to(dtype))
    return Case(ours, theirs, inputs, cotangents[:1] if dtype == FP32 else cotangents)


def gelu_case(
    dtype: torch.dtype = FP32, factor: bool = True, bias: bool = True, p: float = 0.0, rows: int = 7, width: int = 48
) -> Case:
    inputs = pending(rows, width, dtype, factor, bias)
    assert inputs["z"] is not None
    inputs["z"] *= 3

    def ours(z: Tensor, factor: Any, bias: Any) -> Any:
        return Gelu.apply(z, factor, bias)

    cotangents = (randn(rows, width, seed=6).to(dtype),)
    return Case(ours, lambda z, factor, bias: F.gelu(affine(z, factor, bias)), inputs, cotangents)


def attention_case(
    dtype: torch.dtype = FP32,
    factor: bool = True,
    bias: bool = True,
    p: float = 0.3,
    lengths: tuple[int, ...] = (1, 3, 3, 17),
    heads: int = 2,
    width: int = 16,
) -> Case:
    packed = Packed.of(lay_out([(np.ones(length, int), length) for length in lengths]), heads)
    words, keep = drawn(packed.weights, p)

    def ours(z: Tensor, factor: Any, bias: Any) -> Any:
        return PackedAttention.apply(z, factor, bias, packed, heads, words)

    def theirs(z: Tensor, factor: Any, bias: Any) -> Any:
        """One sequence after the other; weights are ordered by sequence, head and row."""
        mixed, place = [], 0
        for rows in affine(z, factor, bias).split(lengths):
            q, k, v = rows.view(len(rows), 3, heads, width).permute(1, 2, 0, 3)
            weights = (q @ k.transpose(1, 2) * width**-0.5).softmax(-1)
            weights = weights * keep[place : place + weights.numel()].view(weights.shape).to(z.dtype)
            place += weights.numel()
            mixed.append((weights @ v).transpose(0, 1).flatten(1))
        return torch.cat(mixed)

    rows = sum(lengths)
    inputs = pending(rows, 3 * heads * width, dtype, factor, bias)
    return Case(ours, theirs, inputs, (randn(rows, heads * width, seed=6).to(dtype),))


CASES: dict[str, Callable[..., Case]] = {"norm": norm_case, "gelu": gelu_case, "attention": attention_case}
KERNELS = pytest.mark.parametrize("kernel", CASES)


def outcome(
    function: Callable[..., Any], inputs: Mapping[str, Tensor | None], cotangents: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """Outputs, and the gradients of all inputs."""
    leaves = {name: None if one is None else one.clone().requires_grad_() for name, one in inputs.items()}
    out = function(*leaves.values())
    outs = out if isinstance(out, tuple) else (out,)
    torch.autograd.backward(outs, cotangents)
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}
    assert all(gradient is not None for gradient in gradients.values())
    return {f"output {n}": one.detach() for n, one in enumerate(outs)} | gradients


def compare(case: Case) -> list[str]:
    """The names of the values that differ."""
    exact = {name: None if tensor is None else tensor.double() for name, tensor in case.inputs.items()}
    theirs = outcome(case.theirs, exact, tuple(grad.double() for grad in case.cotangents))
    ours, wrong = outcome(case.ours, case.inputs, case.cotangents), []
    for name, expected in theirs.items():
        found = ours[name]
        rounding = 0.0 if found.dtype == FP32 else 2**-8 * expected.abs()
        if not bool(((found - expected).abs() <= TOLERANCE * expected.abs().max().clamp_min(1) + rounding).all()):
            wrong.append(f"{name}: {float((found - expected).abs().max()):.2g} apart")
    return wrong


WIDTHS: list[dict[str, Any]] = [{}, {"rows": 1, "width": 16}, {"rows": 17, "width": 384}, {"rows": 101, "width": 768}]
HEADS: list[dict[str, Any]] = [{"heads": 12}, {"heads": 3, "width": 32}, {"heads": 1, "width": 64}]
LENGTHS = (1, 4, 15, 16, 17, 63, 130)
SIZES = {"norm": WIDTHS, "gelu": WIDTHS, "attention": [{}, *({**size, "lengths": LENGTHS} for size in HEADS)]}


@DTYPES
@pytest.mark.parametrize(("factor", "bias", "p"), [(True, True, 0.3), (True, False, 0.0), (False, True, 0.0)])
@KERNELS
def test_equals_the_formula(kernel: str, factor: bool, bias: bool, p: float, dtype: torch.dtype) -> None:
    for size in SIZES[kernel]:
        case = CASES[kernel](dtype, factor, bias, p, **size)
        assert not compare(case), size
    found = outcome(case.ours, case.inputs, case.cotangents)
    for name, tensor in case.inputs.items():
        assert tensor is None or found[f"gradient of {name}"].dtype == tensor.dtype


@pytest.mark.parametrize("size", [6, 40, 4e3, 1e7])
def test_scores_too_large_for_an_exponential(size: float) -> None:
    """As in a run that diverges; e^88 is the largest power in fp32. Powers of 2, so that large scores are exact in fp32."""
    case = attention_case(factor=False, bias=False, p=0.0)
    z = case.inputs["z"]
    assert z is not None
    z.mul_(size)
    z.copy_(z.sign() * 2 ** z.abs().log2().round() if size > 6 else z.round())
    q, k, v = z.view(-1, 3, 32).unbind(1)
    v.clamp_(-1, 1)
    if size > 6:  # one place of a row counts alone, so that a sum of its products has no rounding
        q.view(-1, 2, 16)[..., 1:] = k.view(-1, 2, 16)[..., 1:] = 0
    scores = q[-17:].view(17, 2, 16).transpose(0, 1) @ k[-17:].view(17, 2, 16).permute(1, 2, 0) / 4
    assert float(scores.max()) > 15 * size
    assert not compare(case)


@pytest.mark.parametrize("scores", [10, 3e3, 1e5])
def test_gradients_at_large_scores_are_as_exact_as_torch_s_in_fp32(scores: float) -> None:
    """These gradients are almost zero, so weights that do not sum exactly to 1 would dominate them."""
    case = attention_case(factor=False, bias=False, p=0.0, lengths=(40,) * 8)
    z = case.inputs["z"]
    assert z is not None
    z.view(-1, 3, 32)[:, :2] *= (scores / 4) ** 0.5
    found, torchs = (outcome(function, case.inputs, case.cotangents) for function in (case.ours, case.theirs))
    exact = outcome(case.theirs, case.inputs | {"z": z.double()}, (case.cotangents[0].double(),))
    for name in ("output 0", "gradient of z"):
        value = exact[name]
        errors = [float((one[name] - value).abs().max()) for one in (found, torchs)]
        assert errors[0] <= 2 * errors[1], name


def test_gelu_far_from_zero() -> None:
    z = torch.linspace(-100, 100, 16 * 500).view(500, 16)
    case = gelu_case(factor=False, bias=False)._replace(inputs={"z": z, "factor": None, "bias": None})
    assert not compare(case._replace(cotangents=(torch.ones_like(z),)))


@pytest.mark.parametrize("how", ["transposed", "expanded"])
@KERNELS
def test_incoming_gradients_that_are_not_contiguous(kernel: str, how: str) -> None:
    case = CASES[kernel](BF16)
    strided = {
        "transposed": lambda grad: grad.T.contiguous().T,
        "expanded": lambda grad: grad[:1, :1].expand(grad.shape),
    }[how]
    assert not compare(case._replace(cotangents=tuple(map(strided, case.cotangents))))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@DTYPES
@KERNELS
def test_nan_and_infinity_stay_visible(kernel: str, dtype: torch.dtype, bad: float) -> None:
    """In every element where torch has them, whether they come from a product, a residual, a weight or a gradient."""
    case = CASES[kernel](dtype, p=0.5)
    for name in (*case.inputs, "cotangent"):
        for place in (0, 5, 40, -1):
            inputs = {key: None if one is None else one.clone() for key, one in case.inputs.items()}
            cotangents = tuple(grad.clone() for grad in case.cotangents)
            spoiled = cotangents[0] if name == "cotangent" else inputs[name]
            assert spoiled is not None
            spoiled.view(-1)[place] = bad
            wide = {key: None if one is None else one.float() for key, one in inputs.items()}
            ours = outcome(case.ours, inputs, cotangents)
            theirs = outcome(case.theirs, wide, tuple(grad.float() for grad in cotangents))
            for key, expected in theirs.items():
                assert bool((ours[key].isfinite() <= expected.isfinite()).all()), f"{bad} in {name}[{place}]: {key}"


@DTYPES
def test_nan_stays_in_its_own_row_or_sequence(dtype: torch.dtype) -> None:
    for kernel, rows in (("norm", range(2, 3)), ("gelu", range(2, 3)), ("attention", range(1, 4))):
        case = CASES[kernel](dtype)
        assert case.inputs["z"] is not None
        case.inputs["z"][2] = float("nan")
        found = outcome(case.ours, case.inputs, case.cotangents)
        for name in ("output 0", "gradient of z"):
            assert not set((~found[name].isfinite()).any(1).nonzero().flatten().tolist()) - set(rows)


@DTYPES
@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_sequence_alone_has_the_same_bits(width: int, dtype: torch.dtype) -> None:
    lengths = (1, 2, 2, 16, 17, 30, 75)
    case = attention_case(dtype, p=0.0, lengths=lengths, heads=3, width=width)
    together = outcome(case.ours, case.inputs, case.cotangents)
    assert case.inputs["z"] is not None
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        own = slice(end - length, end)
        alone = attention_case(dtype, p=0.0, lengths=(length,), heads=3, width=width)
        found = outcome(alone.ours, case.inputs | {"z": case.inputs["z"][own]}, (case.cotangents[0][own],))
        for name in ("output 0", "gradient of z"):
            assert torch.equal(found[name], together[name][own]), (length, name)


@DTYPES
@KERNELS
def test_results_do_not_depend_on_the_threads(kernel: str, dtype: torch.dtype) -> None:
    sizes: dict[str, Any] = {"lengths": tuple(range(1, 40))} if kernel == "attention" else {"rows": 333}
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            case = CASES[kernel](dtype, p=0.3, **sizes)  # draws its masks again
            found.append(outcome(case.ours, case.inputs, case.cotangents))
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.9, 1.0])
def test_masks_are_those_of_plain_dropout_in_sequence(p: float) -> None:
    plain, ours = noise(), Dropout(p, noise())
    for count in (1, 16, 777, 50_000, 3):
        words, threshold, scale = mask(ours, count)
        assert words is not None
        assert torch.equal((words[:count] >= threshold) * scale, plain.keep(count, p))
    assert mask(ours.eval(), 9) == mask(Dropout(0.0, noise()), 9) == Mask()


def test_a_kernel_rejects_other_types_and_layouts() -> None:
    """Otherwise it would misread memory."""
    for dtype in (torch.float64, torch.float16):
        with pytest.raises(KeyError):
            Gelu.apply(torch.ones(2, 16, dtype=dtype), None, None)
    with pytest.raises(AssertionError):
        Gelu.apply(torch.ones(16, 32).T, None, None)


def with_origin(kept: bool, p: float, smallest: float, bias: bool) -> list[Tensor]:
    """Gradients of a norm whose residual is another norm's output, with z stored for the factor's gradient or recomputed."""
    rows, width = 50, 64
    origin = (randn(rows, width, seed=11), 1 + 0.3 * randn(width, seed=12), randn(width, seed=13))
    x = (origin[0] * origin[1] + origin[2]).requires_grad_()
    z = randn(rows, width, seed=1).bfloat16().requires_grad_()
    factor = (smallest + torch.rand(width, generator=torch.Generator().manual_seed(2))).requires_grad_()
    beta = randn(width, seed=3).requires_grad_() if bias else None
    words, _ = drawn(rows * width, p)
    gamma, delta = torch.ones(width), torch.zeros(width)
    outputs = ResidualNorm.apply(
        x, z, factor, beta, gamma, delta, EPS, words, torch.empty_like(x), None if kept else origin
    )
    cotangents = randn(rows, width, seed=4), randn(rows, width, seed=5).bfloat16()
    return list(torch.autograd.grad(outputs, [x, z, factor, *([beta] if beta is not None else [])], cotangents))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smallest", [1.0, passes.SMALLEST_FACTOR])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_a_recomputed_product_gives_the_same_gradients(p: float, smallest: float, bias: bool) -> None:
    """The factor's to the digits of fp32, a hundred times closer than bf16 rounding of z; all others bit for bit."""
    kept, recomputed = with_origin(True, p, smallest, bias), with_origin(False, p, smallest, bias)
    for n, (one, other) in enumerate(zip(kept, recomputed, strict=True)):
        tolerance = 2e-5 if n == 2 else 0
        torch.testing.assert_close(other, one, rtol=0, atol=tolerance * float(one.abs().max()))


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, True), (-1.0, True), (0.01, False), (0.0, False), (None, False)]
)
def test_a_product_is_stored_if_a_factor_is_too_small(factor: float | None, expected: bool) -> None:
    y = Product(torch.ones(2, 16).bfloat16(), None if factor is None else torch.tensor([1.0] * 15 + [factor]))
    assert passes._recoverable(y) is expected
    assert not passes._recoverable(Product(y.z.float(), y.factor)), "fp32 has more digits than the sum leaves"
    with torch.no_grad():
        assert not passes._recoverable(y), "there is no backward"
