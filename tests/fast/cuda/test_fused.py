"""Triton's kernels equal torch's operations; on a CPU, Triton's interpreter runs them (tests/conftest.py chooses it)."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda.passes import Passes, Ragged
from mtbert.model.bert import BertConfig, Embeddings
from mtbert.model.dropout import Dropout, Noise

pytest.importorskip("triton")
from mtbert.fast.cuda import choice, fused, kernels
from mtbert.fast.cuda.fused import FusedPasses

pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 32), (7, 48), (70, 36)]  # rows; widths that are a power of two and not


def inputs(rows: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(rows)
    found = {name: torch.randn(rows, width, generator=draw) for name in ("x", "y", "to_wide", "to_narrow")}
    found |= {name: torch.randn(width, generator=draw) for name in ("bias", "gamma", "beta")}
    return {name: one.to(DEVICE, dtype if name in ("y", "to_narrow") else None) for name, one in found.items()}


def norm_of(
    given: dict[str, Tensor], passes: Passes, bias: bool = True, outs: str = "wide narrow"
) -> dict[str, Tensor]:
    """The outputs of a residual norm that `outs` names, and the gradients of a sum of them."""
    norm = nn.LayerNorm(given["x"].shape[1], device=DEVICE)
    with torch.no_grad():
        norm.weight.copy_(given["gamma"])
        norm.bias.copy_(given["beta"])
    x, y, b = (given[name].clone().requires_grad_() for name in ("x", "y", "bias"))
    states = passes.residual_norm(x, y, b if bias else None, norm, Dropout(0.0, Noise()))
    found = {name: getattr(states, name) for name in outs.split()}
    sum((found[name].float() * given[f"to_{name}"].float()).sum() for name in found).backward()  # type: ignore[union-attr]
    gradients = {"x": x.grad, "y": y.grad, "bias": b.grad, "gamma": norm.weight.grad, "beta": norm.bias.grad}
    return found | {f"gradient of {name}": one for name, one in gradients.items() if one is not None}


def gelu_of(given: dict[str, Tensor], passes: Passes, bias: bool = True) -> dict[str, Tensor]:
    y, b = (given[name].clone().requires_grad_() for name in ("y", "bias"))
    out = passes.gelu(y, b if bias else None)
    (out.float() * given["to_wide"]).sum().backward()
    assert y.grad is not None
    return {"out": out, "gradient of y": y.grad} | ({"gradient of bias": b.grad} if b.grad is not None else {})


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], by: float = 2e-5) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert found[name].dtype == one.dtype, name
        torch.testing.assert_close(found[name], one, atol=by, rtol=by, msg=name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_passes_are_those_of_torch(shape: tuple[int, int], bias: bool) -> None:
    given = inputs(*shape)
    for outs in ("wide narrow", "wide", "narrow"):
        assert_equal(norm_of(given, FusedPasses(), bias, outs), norm_of(given, Passes(), bias, outs))
    assert_equal(gelu_of(given, FusedPasses(), bias), gelu_of(given, Passes(), bias))


def test_in_bf16_results_are_rounded_once() -> None:
    given = inputs(7, 48, torch.bfloat16)
    exact = {name: one.float() for name, one in given.items()}
    for take in (norm_of, gelu_of):
        found, expected = take(given, FusedPasses()), take(exact, Passes())
        for name, one in found.items():
            torch.testing.assert_close(one.float(), expected[name], atol=1e-2, rtol=1e-2, msg=name)
            assert one.dtype == (torch.bfloat16 if name in ("narrow", "gradient of y", "out") else torch.float32), name


def masks(seed: int) -> Tensor:
    """The factors by which two passes of one forward multiply in their dropout with p = 0.25, (2, 24, 48)."""
    torch.manual_seed(seed)
    passes, norm, found = FusedPasses(), nn.LayerNorm(48, device=DEVICE), []
    for _ in range(2):
        y = torch.ones(24, 48, device=DEVICE, requires_grad=True)
        x = torch.zeros(24, 48, device=DEVICE, requires_grad=True)
        wide = passes.residual_norm(x, y, None, norm, Dropout(0.25, Noise())).wide
        (wide * torch.randn(24, 48, device=DEVICE)).sum().backward()
        assert x.grad is not None and y.grad is not None
        found.append(y.grad / x.grad)
    return torch.stack(found)


def test_a_mask_is_a_function_of_seed_and_pass() -> None:
    one, again, other = masks(1), masks(1), masks(2)
    assert torch.equal(one, again)
    kept = one.isclose(torch.tensor(4 / 3))
    assert torch.all(kept | (one == 0))
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.04)
    for different in (kept[1], other[0] != 0):
        assert float((kept[0] == different).float().mean()) == pytest.approx(0.75**2 + 0.25**2, abs=0.05)
    # Neither rows nor columns repeat each other.
    for axis in (0, 1):
        assert float((kept[0] == kept[0].roll(1, axis)).float().mean()) == pytest.approx(0.625, abs=0.05)


def test_forward_and_backward_have_one_mask() -> None:
    """By differences: the gradient of y is that of the dropped y."""
    given, norm = inputs(7, 48), nn.LayerNorm(48, device=DEVICE)

    def loss(y: Tensor) -> Tensor:
        torch.manual_seed(5)
        wide = FusedPasses().residual_norm(given["x"], y, None, norm, Dropout(0.3, Noise())).wide
        return (wide * given["to_wide"]).sum()

    y = given["y"].clone().requires_grad_()
    loss(y).backward()
    assert y.grad is not None
    step = 1e-2 * given["to_narrow"]
    by_difference = (loss(given["y"] + step) - loss(given["y"] - step)).detach() / 2
    assert float(by_difference) == pytest.approx(float((y.grad * step).sum()), rel=2e-3)


def test_frozen_parameters_cost_no_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    real = fused.launch
    monkeypatch.setattr(fused, "launch", lambda *a, **k: (seen.append(k), real(*a, **k)))
    norm = nn.LayerNorm(48, device=DEVICE).requires_grad_(False)
    given = inputs(7, 48)
    y = given["y"].requires_grad_()
    narrow = FusedPasses().residual_norm(given["x"], y, given["bias"], norm, Dropout(0.0, Noise())).narrow
    FusedPasses().gelu(narrow, given["bias"]).sum().backward()
    assert [one["SUMS"] for one in seen if "SUMS" in one] == [False, False]


@pytest.mark.parametrize("segments", [2, 3])
def test_embeddings_are_those_of_torch(segments: int) -> None:
    """Gradients of places and segments too; the filler has place 0 throughout, and no gradient."""
    torch.manual_seed(0)
    lengths, filler = [2, 5, 1, 30, 7], 6
    embeddings = Embeddings(BertConfig(vocabulary=9, positions=33, segments=segments, hidden=20), 0.0, Noise())
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.zeros(filler, dtype=torch.long)])
    offsets = torch.tensor([0, *lengths, filler - 2, 2]).cumsum(0)
    tokens = (torch.randint(9, positions.shape), positions, torch.randint(2, positions.shape), offsets, torch.arange(5))
    stream = TokenStream(*(one.to(DEVICE) for one in tokens), sum(lengths), 33)
    grad = torch.randn(len(positions), 20)
    grad[sum(lengths) :] = 0
    found = []
    for passes in (FusedPasses(), Passes()):
        one = deepcopy(embeddings).to(DEVICE)
        out = passes.embed(one, stream, Ragged.of(stream))
        out.backward(grad.to(DEVICE))
        found.append({"out": out, **{name: p.grad for name, p in one.named_parameters() if p.grad is not None}})
    assert len(found[0]) == 6
    assert_equal(*found)


@pytest.mark.parametrize("rows", [0, 33, 16 * 150])  # those of a part take one round, or two
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_those_of_torch(rows: int, dtype: torch.dtype) -> None:
    matrix = inputs(rows, 20, dtype)["y"]
    torch.testing.assert_close(
        FusedPasses.sums(matrix, torch.float32), matrix.sum(0, dtype=torch.float32), atol=1e-4, rtol=1e-4
    )


# ---- the choice


def test_the_trial_passes_and_notices_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    choice._try(FusedPasses, torch.device(DEVICE), 48, 80, 2)
    real = fused.launch

    def wrong(kernel: Any, *arguments: Any, **constants: Any) -> None:
        real(kernel, *arguments, **constants | ({"BIAS": False} if kernel is kernels.gelu_backward else {}))

    monkeypatch.setattr(fused, "launch", wrong)
    with pytest.raises(ArithmeticError):
        choice._try(FusedPasses, torch.device(DEVICE), 48, 80, 2)


def test_kernels_that_passed_are_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Until the GPU, a width or the code changes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    tried: list[Any] = []
    monkeypatch.setattr(choice, "_try", lambda *arguments: tried.append(arguments))
    gpu = ["one"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: gpu[0])

    def choose(*widths: int) -> int:
        choice.passes_for.cache_clear()
        assert choice.passes_for(torch.device("cuda"), *widths, 1) is FusedPasses
        return len(tried)

    assert [choose(8, 16), choose(8, 16), choose(8, 32), choose(8, 16)] == [1, 1, 2, 2]
    gpu[0] = "another"
    assert [choose(8, 16), choose(8, 16)] == [3, 3]
    copied = shutil.copytree(Path(choice.__file__).parent, tmp_path / "code")
    (copied / "kernels.py").write_text("changed", encoding="utf-8")
    monkeypatch.setattr(choice, "__file__", str(copied / "choice.py"))
    assert [choose(8, 16), choose(8, 16)] == [4, 4]
    choice.passes_for.cache_clear()


def test_without_kernels_there_is_one_note(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setattr(choice, "_try", fails)
    monkeypatch.setattr(choice, "_record", lambda *_: Path("none"))
    choice.passes_for.cache_clear()
    assert [choice.passes_for(torch.device("cuda"), 8, 16, 1) for _ in range(2)] == [Passes] * 2
    choice.passes_for.cache_clear()
    assert capsys.readouterr().err == (
        "note: Triton's kernels cannot be used, so that a step takes more launches, which is slower "
        "(RuntimeError: Failed to find C compiler)\n"
    )


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mtbert.fast.cuda import attention, fused, kernels

WIDE = {"x", "bias", "gamma", "beta", "wide", "normalised", "rstd", "g_wide", "g_x", "sums", "parts", "logsum", "of_places"}
TYPES = {"seed": "*i64", **dict.fromkeys(("offsets", "positions", "segments"), "*i32")}
TYPES |= dict.fromkeys(("p", "scale", "eps", "factor"), "fp32") | dict.fromkeys(("site", "rows", "sequences", "places"), "i32")
NORM = {"D": 768, "WIDTH": 1024, "ROWS": fused.NORM_ROWS}
HEADS = {"H": 12, "K": 64, "WIDTH": 64}
KERNELS = {
    kernels.residual_norm: NORM,
    kernels.residual_norm_backward: NORM | {"num_warps": 8},
    kernels.gelu: {"D": 768, "BLOCK": fused.BLOCK},
    kernels.gelu_backward: {"D": 768, "ROWS": fused.ROWS, "COLUMNS": fused.COLUMNS},
    kernels.column_sums: {"D": 768, "ROWS": fused.SUM_ROWS, "COLUMNS": fused.SUM_COLUMNS},
    kernels.places_backward: {"D": 768, "BLOCK": 16, "COLUMNS": fused.COLUMNS},
    attention.attention: HEADS | attention.FORWARD,
    attention.attention_backward: HEADS | attention.BACKWARD,
}
for kernel, sizes in KERNELS.items():
    constants = {one.name: sizes.get(one.name, True) for one in kernel.params if one.is_constexpr}
    kinds = {name: TYPES.get(name, "*fp32" if name in WIDE else "*bf16") for name in kernel.arg_names}
    kinds |= dict.fromkeys(constants, "constexpr")
    for generation in (80, 90):
        options = {"num_warps": sizes.get("num_warps", 4)}
        made = triton.compile(ASTSource(kernel, kinds, constants), GPUTarget("cuda", generation, 32), options)
        assert len(made.asm["cubin"]) > 1000 and ".local" not in made.asm["ptx"], kernel
"""


def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """To machine code of Ampere and Hopper, by the assembler that Triton brings."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
