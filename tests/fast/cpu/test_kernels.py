"""The kernels against plain torch in fp64, forward and backward: norm with its residual sum, GELU, packed attention."""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtbert.data.tokens import Block
from mtbert.kernels import build
from mtbert.model import attention, fused
from mtbert.model.attention import PackedAttention, lay_out_packed
from mtbert.model.dropout import Mask, Noise
from mtbert.model.fused import Gelu, ResidualNorm

pytestmark = pytest.mark.skipif(not build.available(), reason="needs g++")

EPS = 1e-12
FP32, BF16 = torch.float32, torch.bfloat16
# Of a result's largest value, at least of 1; a bf16 result may be a rounding of its own value off as well.
TOLERANCE = 1e-5


class Case(NamedTuple):
    """A kernel and the formula it stands for: functions of `inputs`, whose outputs meet `cotangents` in the backward."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    inputs: dict[str, Tensor | None]
    cotangents: tuple[Tensor | None, ...]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pending(rows: int, width: int, dtype: torch.dtype, factor: bool, bias: bool) -> dict[str, Tensor | None]:
    """A product, and what it waits for."""
    return {
        "z": randn(rows, width, seed=1).to(dtype),
        "factor": 1 + 0.3 * randn(width, seed=2) if factor else None,
        "bias": randn(width, seed=3) if bias else None,
    }


def affine(z: Tensor, factor: Tensor | None, bias: Tensor | None) -> Tensor:
    y = z if factor is None else z * factor
    return y if bias is None else y + bias


def mask(count: int, p: float) -> tuple[Mask | None, Tensor | float]:
    """For the kernel; and its factors, from another drawing of the same words."""
    one, other = Noise(), Noise()
    for noise in (one, other):
        noise.reseed(5, 7)
    return (one.mask(count, p), other.keep(count, p).double()) if p else (None, 1.0)


def norm_case(
    rows: int = 7, width: int = 48, dtype: torch.dtype = FP32, factor: bool = True, bias: bool = True, p: float = 0.3
) -> Case:
    words, keep = mask(rows * width, p)
    inputs = {"x": randn(rows, width, seed=0), **pending(rows, width, dtype, factor, bias)}
    inputs |= {"gamma": 1 + 0.3 * randn(width, seed=4), "beta": randn(width, seed=5)}

    def ours(x: Tensor, z: Tensor, factor: Any, bias: Any, gamma: Tensor, beta: Tensor) -> Any:
        return ResidualNorm.apply(x, z, factor, bias, gamma, beta, EPS, words, torch.empty_like(x), None)

    def theirs(x: Tensor, z: Tensor, factor: Any, bias: Any, gamma: Tensor, beta: Tensor) -> Any:
        y = affine(z, factor, bias) * (keep.to(z.dtype).view(z.shape) if torch.is_tensor(keep) else keep)
        out = F.layer_norm(x + y, (width,), gamma, beta, EPS)
        return out if dtype == FP32 else (out, out * 1)

    cotangents = (randn(rows, width, seed=6), randn(rows, width, seed=7).to(dtype))
    return Case(ours, theirs, inputs, cotangents[:1] if dtype == FP32 else cotangents)


def gelu_case(
    rows: int = 7, width: int = 48, dtype: torch.dtype = FP32, factor: bool = True, bias: bool = True, p: float = 0.0
) -> Case:
    inputs = pending(rows, width, dtype, factor, bias)
    assert inputs["z"] is not None
    inputs["z"] *= 3
    cotangents = (randn(rows, width, seed=6).to(dtype),)
    return Case(Gelu.apply, lambda z, factor, bias: F.gelu(affine(z, factor, bias)), inputs, cotangents)


def blocks_of(lengths: list[int]) -> tuple[Block, ...]:
    return tuple(Block(len(list(same)), length) for length, same in groupby(lengths))


def attention_case(
    lengths: list[int] | None = None,
    heads: int = 2,
    width: int = 16,
    dtype: torch.dtype = FP32,
    factor: bool = True,
    bias: bool = True,
    p: float = 0.3,
) -> Case:
    lengths = [1, 3, 3, 17] if lengths is None else lengths
    layout = lay_out_packed(blocks_of(lengths), heads)
    words, keep = mask(layout.weights, p)

    def ours(z: Tensor, factor: Any, bias: Any) -> Any:
        return PackedAttention.apply(z, factor, bias, layout, heads, words)

    def theirs(z: Tensor, factor: Any, bias: Any) -> Any:
        """One sequence after the other; its weights lie sequence by sequence, in it head by head and row by row."""
        mixed, place = [], 0
        for rows in affine(z, factor, bias).split(lengths):
            q, k, v = rows.view(len(rows), 3, heads, width).permute(1, 2, 0, 3)
            weights = (q @ k.transpose(1, 2) * width**-0.5).softmax(-1)
            if torch.is_tensor(keep):
                weights = weights * keep[place : place + weights.numel()].view(weights.shape).to(z.dtype)
            place += weights.numel()
            mixed.append((weights @ v).transpose(0, 1).flatten(1))
        return torch.cat(mixed)

    rows = sum(lengths)
    inputs = pending(rows, 3 * heads * width, dtype, factor, bias)
    return Case(ours, theirs, inputs, (randn(rows, heads * width, seed=6).to(dtype),))


CASES: dict[str, Callable[..., Case]] = {"norm": norm_case, "gelu": gelu_case, "attention": attention_case}


def outcome(
    function: Callable[..., Any],
    inputs: Mapping[str, Tensor | None],
    cotangents: tuple[Tensor | None, ...],
    frozen: tuple[str, ...] = (),
) -> dict[str, Tensor | None]:
    """Outputs, and the gradients of all inputs that are not frozen."""
    leaves = {
        name: None if tensor is None else tensor.clone().requires_grad_(name not in frozen)
        for name, tensor in inputs.items()
    }
    out = function(**leaves) if function is not Gelu.apply else function(*leaves.values())
    outs = out if isinstance(out, tuple) else (out,)
    used = [(one, grad) for one, grad in zip(outs, cotangents, strict=True) if grad is not None]
    torch.autograd.backward([one for one, _ in used], [grad for _, grad in used])
    found: dict[str, Tensor | None] = {f"output {n}": one.detach() for n, one in enumerate(outs)}
    return found | {f"gradient of {name}": None if leaf is None else leaf.grad for name, leaf in leaves.items()}


def compare(case: Case, frozen: tuple[str, ...] = ()) -> list[str]:
    """What differs; nothing, if all is well."""
    exact = {name: None if tensor is None else tensor.double() for name, tensor in case.inputs.items()}
    cotangents = tuple(None if grad is None else grad.double() for grad in case.cotangents)
    ours = outcome(case.ours, case.inputs, case.cotangents, frozen)
    theirs = outcome(case.theirs, exact, cotangents, frozen)
    assert ours.keys() == theirs.keys()
    wrong = []
    for name, expected in theirs.items():
        found = ours[name]
        if found is None or expected is None:
            wrong += [] if found is expected else [f"{name}: one is None"]
            continue
        limit = TOLERANCE * expected.abs().max().clamp_min(1) + (2**-8 * expected.abs() if found.dtype == BF16 else 0)
        if not bool(((found - expected).abs() <= limit).all()):  # NaN is not
            wrong.append(f"{name}: {float((found - expected).abs().max()):.2g} apart")
    return wrong


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("factor", [True, False])
@pytest.mark.parametrize("kernel", CASES)
def test_equals_the_formula(kernel: str, factor: bool, bias: bool, p: float, dtype: torch.dtype) -> None:
    case = CASES[kernel](dtype=dtype, factor=factor, bias=bias, p=p)
    assert not compare(case)
    gradients = outcome(case.ours, case.inputs, case.cotangents)
    for name, tensor in case.inputs.items():
        gradient = gradients[f"gradient of {name}"]
        assert (gradient is None) == (tensor is None)
        assert gradient is None or (gradient.dtype, gradient.shape) == (tensor.dtype, tensor.shape)  # type: ignore


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [16, 32, 48, 384, 768])
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 101])
@pytest.mark.parametrize("kernel", ["norm", "gelu"])
def test_rows_and_widths(kernel: str, rows: int, width: int, dtype: torch.dtype) -> None:
    assert not compare(CASES[kernel](rows=rows, width=width, dtype=dtype))


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("heads", "width"), [(1, 16), (12, 16), (3, 32), (1, 64), (2, 64)])
@pytest.mark.parametrize("length", [1, 4, 15, 16, 17, 63, 130])
def test_lengths_and_heads(length: int, heads: int, width: int, dtype: torch.dtype) -> None:
    assert not compare(attention_case([length, length + 1], heads, width, dtype))


LENGTHS = st.lists(st.integers(1, 40) | st.integers(1, 130), min_size=1, max_size=40)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.sampled_from([16, 32, 64]), st.sampled_from([0.0, 0.2]))
def test_any_batch_of_sequences(lengths: list[int], width: int, p: float) -> None:
    """More and fewer than the parts that sums go by; sorted, as streams are, with filler of one token at the end."""
    assert not compare(attention_case([*sorted(lengths), 1, 1], 2, width, p=p))


@pytest.mark.parametrize("size", [6, 40, 4e3, 1e7])
def test_scores_too_large_for_an_exponential(size: float) -> None:
    """As in a run that diverges; e^88 is the last in fp32. Powers of 2, so that large scores too are exact in fp32."""
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
    """Weights that do not quite sum to 1 would leave a multiple of the gradient, which is next to nothing there."""
    case = attention_case([40] * 8, factor=False, bias=False, p=0.0)
    z = case.inputs["z"]
    assert z is not None
    z.view(-1, 3, 32)[:, :2] *= (scores / 4) ** 0.5
    found, torchs = (outcome(function, case.inputs, case.cotangents) for function in (case.ours, case.theirs))
    exact = outcome(case.theirs, case.inputs | {"z": z.double()}, (case.cotangents[0].double(),))  # type: ignore[union-attr]
    for name in ("output 0", "gradient of z"):
        value = exact[name]
        errors = [float((one[name] - value).abs().max()) for one in (found, torchs)]  # type: ignore[operator]
        assert errors[0] <= 2 * errors[1], name


def test_gelu_far_from_zero() -> None:
    z = torch.linspace(-100, 100, 16 * 500).view(500, 16)
    case = gelu_case(factor=False, bias=False)._replace(inputs={"z": z, "factor": None, "bias": None})
    assert not compare(case._replace(cotangents=(torch.ones_like(z),)))


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kernel", CASES)
def test_frozen_inputs(kernel: str, dtype: torch.dtype) -> None:
    case = CASES[kernel](dtype=dtype)
    for trained in case.inputs:
        assert not compare(case, tuple(name for name in case.inputs if name != trained))
    frozen = {name: tensor for name, tensor in case.inputs.items() if tensor is not None}
    out = case.ours(*frozen.values())
    assert not (out[0] if isinstance(out, tuple) else out).requires_grad


@pytest.mark.parametrize("lost", [0, 1])
def test_a_gradient_for_one_of_the_norm_s_outputs_only(lost: int) -> None:
    case = norm_case(dtype=BF16)
    cotangents = tuple(None if n == lost else grad for n, grad in enumerate(case.cotangents))
    assert not compare(case._replace(cotangents=cotangents))


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("how", ["transposed", "expanded", "sliced"])
@pytest.mark.parametrize("kernel", CASES)
def test_incoming_gradients_that_do_not_lie_row_by_row(kernel: str, how: str, dtype: torch.dtype) -> None:
    case = CASES[kernel](dtype=dtype)
    strided = {
        "transposed": lambda grad: grad.T.contiguous().T,
        "expanded": lambda grad: grad[:1, :1].expand(grad.shape),
        "sliced": lambda grad: grad.repeat_interleave(2, 1)[:, ::2],
    }[how]
    cotangents = tuple(strided(grad) for grad in case.cotangents if grad is not None)
    assert not any(grad.is_contiguous() for grad in cotangents)
    assert not compare(case._replace(cotangents=cotangents))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kernel", CASES)
def test_nan_and_infinity_stay_visible(kernel: str, dtype: torch.dtype, bad: float) -> None:
    """In every element where torch shows them, whether they come in by a product, a residual, a weight or a gradient."""
    case = CASES[kernel](dtype=dtype, p=0.5)
    for name in (*case.inputs, "cotangent"):
        for place in (0, 5, 40, -1):
            inputs = {key: None if one is None else one.clone() for key, one in case.inputs.items()}
            cotangents = tuple(None if grad is None else grad.clone() for grad in case.cotangents)
            spoiled = cotangents[0] if name == "cotangent" else inputs[name]
            assert spoiled is not None
            spoiled.view(-1)[place] = bad
            wide = {key: None if one is None else one.float() for key, one in inputs.items()}
            ours = outcome(case.ours, inputs, cotangents)
            theirs = outcome(case.theirs, wide, tuple(grad.float() for grad in cotangents if grad is not None))
            for key, expected in theirs.items():
                found = ours[key]
                assert found is not None and expected is not None
                assert bool((found.isfinite() <= expected.isfinite()).all()), f"{bad} in {name}[{place}]: {key}"


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
def test_nan_stays_in_its_own_row_or_sequence(dtype: torch.dtype) -> None:
    for kernel, rows in (("norm", range(2, 3)), ("gelu", range(2, 3)), ("attention", range(1, 4))):
        case = CASES[kernel](dtype=dtype)
        assert case.inputs["z"] is not None
        case.inputs["z"][2] = float("nan")
        found = outcome(case.ours, case.inputs, case.cotangents)
        for name in ("output 0", "gradient of z"):
            assert not set((~found[name].isfinite()).any(1).nonzero().flatten().tolist()) - set(rows)  # type: ignore


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_sequence_alone_has_the_same_bits(width: int, dtype: torch.dtype) -> None:
    lengths = [1, 2, 2, 16, 17, 30, 75]
    case = attention_case(lengths, 3, width, dtype, p=0.0)
    together = outcome(case.ours, case.inputs, case.cotangents)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        alone = attention_case([length], 3, width, dtype, p=0.0)
        assert case.inputs["z"] is not None and case.cotangents[0] is not None
        found = outcome(alone.ours, case.inputs | {"z": case.inputs["z"][own]}, (case.cotangents[0][own],))
        for name in ("output 0", "gradient of z"):
            assert torch.equal(found[name], together[name][own]), (length, name)  # type: ignore[arg-type, index]
        start += length


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kernel", CASES)
def test_results_do_not_depend_on_the_threads(kernel: str, dtype: torch.dtype) -> None:
    sizes: dict[str, Any] = {"lengths": [*range(1, 40)]} if kernel == "attention" else {"rows": 333}
    case = CASES[kernel](dtype=dtype, **sizes)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(outcome(case.ours, case.inputs, case.cotangents))
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name  # type: ignore[arg-type]


# Places of the arguments as the calls in fused.py and attention.py order them.
PLANTED: dict[str, tuple[str, str, Callable[[list[Any]], Any]]] = {
    "norm without bias": ("norm", "residual_norm", lambda a: a.__setitem__(3, None)),
    "norm without factor": ("norm", "residual_norm", lambda a: a.__setitem__(2, None)),
    "norm without dropout": ("norm", "residual_norm", lambda a: a.__setitem__(4, None)),
    "norm with another eps": ("norm", "residual_norm", lambda a: a.__setitem__(9, 1e-3)),
    "norm without the last row": ("norm", "residual_norm", lambda a: a.__setitem__(10, a[10] - 1)),
    "norm's gradient without dropout": ("norm", "residual_norm_backward", lambda a: a.__setitem__(11, None)),
    "norm's gradient without bf16's": ("norm", "residual_norm_backward", lambda a: a.__setitem__(1, None)),
    "norm's gradient without the last row": ("norm", "residual_norm_backward", lambda a: a.__setitem__(15, a[15] - 1)),
    "gelu without bias": ("gelu", "gelu", lambda a: a.__setitem__(2, None)),
    "gelu without the last row": ("gelu", "gelu", lambda a: a.__setitem__(3, a[3] - 1)),
    "gelu's gradient without bias": ("gelu", "gelu_backward", lambda a: a.__setitem__(3, None)),
    "gelu's gradient without factor": ("gelu", "gelu_backward", lambda a: a.__setitem__(2, None)),
    "attention without bias": ("attention", "attention", lambda a: a.__setitem__(2, None)),
    "attention without dropout": ("attention", "attention", lambda a: a.__setitem__(3, None)),
    "attention that keeps more": ("attention", "attention", lambda a: a.__setitem__(4, a[4] - 500)),
    "attention with all weights in one place": ("attention", "attention", lambda a: a[7].zero_()),
    "attention without the last sequence": ("attention", "attention", lambda a: a.__setitem__(8, a[8] - 1)),
    "attention's gradient without dropout": ("attention", "attention_backward", lambda a: a.__setitem__(4, None)),
    "attention's gradient without bias": ("attention", "attention_backward", lambda a: a.__setitem__(3, None)),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_comparison_sees_a_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, name, plant = PLANTED[bug]
    case = CASES[kernel](dtype=BF16)
    assert not compare(case)
    call = fused.call

    def wrong(called: str, like: Tensor, *arguments: Any) -> None:
        changed = list(arguments)
        if called == name:
            for out in changed[-3:]:  # what a kernel leaves out must not be right by chance
                if isinstance(out, Tensor):
                    out.zero_()
            plant(changed)
        call(called, like, *changed)

    for module in (fused, attention):
        monkeypatch.setattr(module, "call", wrong)
    assert compare(case)


def test_a_kernel_takes_no_type_and_no_layout_but_its_own() -> None:
    """Rather than read memory in another way than it was written."""
    for dtype in (torch.float64, torch.float16):
        with pytest.raises(KeyError):
            Gelu.apply(torch.ones(2, 16, dtype=dtype), None, None)
    with pytest.raises(AssertionError):
        Gelu.apply(torch.ones(16, 32).T, None, None)


def with_origin(kept: bool, p: float, smallest: float, bias: bool) -> list[Tensor]:
    """Gradients of a norm whose residual comes from another norm, with z kept for the factor's or had back from the sum."""
    rows, width = 50, 64
    origin = (randn(rows, width, seed=11), 1 + 0.3 * randn(width, seed=12), randn(width, seed=13))
    x = (origin[0] * origin[1] + origin[2]).requires_grad_()
    z = randn(rows, width, seed=1).bfloat16().requires_grad_()
    factor = (smallest + torch.rand(width, generator=torch.Generator().manual_seed(2))).requires_grad_()
    beta = randn(width, seed=3).requires_grad_() if bias else None
    words, _ = mask(rows * width, p)
    gamma, delta = torch.ones(width), torch.zeros(width)
    outputs = ResidualNorm.apply(
        x, z, factor, beta, gamma, delta, EPS, words, torch.empty_like(x), None if kept else origin
    )
    cotangents = randn(rows, width, seed=4), randn(rows, width, seed=5).bfloat16()
    return list(torch.autograd.grad(outputs, [x, z, factor, *([beta] if beta is not None else [])], cotangents))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smallest", [1.0, fused.SMALLEST_FACTOR])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_a_product_had_back_from_the_sum_gives_the_same_gradients(p: float, smallest: float, bias: bool) -> None:
    """The factor's to fp32's digits, a hundred times closer than z's own rounding to bf16; all others to the last bit."""
    kept, had_back = with_origin(True, p, smallest, bias), with_origin(False, p, smallest, bias)
    for n, (one, other) in enumerate(zip(kept, had_back, strict=True)):
        tolerance = 2e-5 if n == 2 else 0
        torch.testing.assert_close(other, one, rtol=0, atol=tolerance * float(one.abs().max()))


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, True), (-1.0, True), (0.01, False), (0.0, False), (None, False)]
)
def test_a_product_is_kept_where_a_factor_is_too_small(factor: float | None, expected: bool) -> None:
    y = fused.Product(torch.ones(2, 16).bfloat16(), None if factor is None else torch.tensor([1.0] * 15 + [factor]))
    assert fused._recoverable(y) is expected
    assert not fused._recoverable(fused.Product(y.z.float(), y.factor)), "fp32 has more digits than the sum leaves"
    with torch.no_grad():
        assert not fused._recoverable(y), "nobody will ask for it"
