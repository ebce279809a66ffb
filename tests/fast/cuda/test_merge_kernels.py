"""Triton's kernels for merged weights equal torch's operations; on a CPU, Triton's interpreter runs them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operations import Count
from mtbert.fast.cuda.choice import sample
from mtbert.fast.cuda.merged import Merge, MergedWeights
from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear

pytest.importorskip("triton")
from mtbert.fast.cuda import fused_merge
from mtbert.fast.cuda import merge_kernels as kernels
from mtbert.fast.cuda.fused_merge import FusedMerge

pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KINDS: dict[str, tuple[type[LoraLinear], dict[str, bool]]] = {
    "lora": (LoraLinear, {}),
    "dora": (DoraLinear, {}),
    "dora, norm detached": (DoraLinear, {"exact_norm": False}),
}
SHAPES = [(3, 40, 70), (16, 64, 128), (20, 5, 7)]  # rank, outputs, inputs: within a block, blocks, and part of one


def layers(kind: str, rank: int, outputs: int, inputs: int) -> nn.ModuleList:
    """Three layers, whose updates are as large as their weights."""
    torch.manual_seed(0)
    of, options = KINDS[kind]
    made = nn.ModuleList(of(nn.Linear(inputs, outputs), rank, 2.0 * rank, **options) for _ in range(3))
    for layer in made:
        nn.init.normal_(layer.lora_b)
        if isinstance(layer, DoraLinear):
            nn.init.normal_(layer.magnitude)
    with torch.no_grad():
        made[1].weight[2] = made[1].lora_b[2] = 0
    return made.to(DEVICE)


def results(merge: type[Merge], made: nn.ModuleList, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """W' of the layers, of which the first two share a product, and the gradients of a sum of W'."""
    made.zero_grad()
    weights = MergedWeights([(made[0], made[1]), (made[2],)], dtype, merge).weights().values()
    draw = torch.Generator().manual_seed(1)
    gradients = [torch.randn(weight.shape, generator=draw).to(weight) for weight in weights]
    torch.autograd.backward(list(weights), gradients)
    found = {f"W' {n}": weight.detach() for n, weight in enumerate(weights)}
    return found | {name: one.grad for name, one in made.named_parameters() if one.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], by: float) -> None:
    """Equal but for `by` of the largest element."""
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert found[name].dtype == one.dtype and found[name].shape == one.shape, name
        worst = (found[name].float() - one.float()).abs().max() / one.float().abs().max()
        assert float(worst) < by, f"{name}: {float(worst):.1e}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_gradients_are_those_of_torch(kind: str, shape: tuple[int, int, int]) -> None:
    made = layers(kind, *shape)
    assert_close(results(FusedMerge, made), results(Merge, made), 5e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_they_differ_by_rounding(kind: str) -> None:
    """By one step of W', as Triton's interpreter cuts off what a GPU rounds. LoRA's gradients don't depend on W'."""
    made = layers(kind, *SHAPES[0])
    found, expected = (results(merge, made, torch.bfloat16) for merge in (FusedMerge, Merge))
    assert_close(found, expected, 2**-7)
    if kind == "lora":
        gradients = [{name: one for name, one in of.items() if "lora" in name} for of in (found, expected)]
        assert_close(*gradients, 2e-5)


def test_equal_inputs_give_equal_bits() -> None:
    made = layers("dora", *SHAPES[0])
    one, other = results(FusedMerge, made, torch.bfloat16), results(FusedMerge, made, torch.bfloat16)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("magnitude", [0.0, 1.0])
def test_a_zero_row_stays_zero(magnitude: float) -> None:
    made = layers("dora", *SHAPES[0])
    with torch.no_grad():
        made[1].magnitude[2] = magnitude
    for dtype in (torch.float32, torch.bfloat16):
        found = results(FusedMerge, made, dtype)
        assert not found["W' 0"][40 + 2].any()
        assert all(one.isfinite().all() for one in found.values())


def test_what_the_kernels_do_not_take_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(fused_merge, "launch", fails)
    made = layers("dora", 65, 3, 4)
    results(FusedMerge, made)
    results(FusedMerge, layers("dora", 2, 3, 4).double(), torch.double)
    with pytest.raises(AssertionError):
        results(FusedMerge, layers("dora", 2, 3, 4))


def test_three_launches_for_layers_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(fused_merge, "launch", lambda kernel, *_, **__: seen.append(kernel))
    results(FusedMerge, layers("dora", *SHAPES[0]))
    assert seen == [kernels.merge, kernels.merge_backward_rows, kernels.merge_backward_columns]


@pytest.mark.parametrize("exact", [True, False])
def test_dora_takes_no_more_memory_than_lora(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a few vectors; what the interpreter takes is left out."""
    monkeypatch.setattr(fused_merge, "launch", lambda *_, **__: None)

    def peak(made: nn.ModuleList) -> int:
        merged = MergedWeights([(layer,) for layer in made], torch.bfloat16, FusedMerge)
        merged.weights()  # moves W0
        with Count() as seen:
            weights = merged.weights()  # which the products keep
            torch.stack([weight.sum() for weight in weights.values()]).sum().backward()
        return seen.peak

    lora, dora = layers("lora", 1, 64, 64), layers("dora" if exact else "dora, norm detached", 1, 64, 64)
    assert peak(lora) < peak(dora) < 1.1 * peak(lora)


def test_gradients_that_are_not_contiguous() -> None:
    made = layers("dora", *SHAPES[0])
    both = []
    for merge in (FusedMerge, Merge):
        made.zero_grad()
        weights = MergedWeights([(one,) for one in made], torch.float32, merge).weights().values()
        torch.stack([one.sum() for one in weights]).sum().backward()
        both.append({name: one.grad for name, one in made.named_parameters() if one.grad is not None})
    assert_close(*both, 5e-6)


def alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    """As the trial at the start decides."""
    return all(
        torch.allclose(one.float(), other.float(), atol=0.05, rtol=0.05)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("kernel", "changed"),
    [
        ("merge", {"RANK": 7}),
        ("merge_backward_rows", {"EXACT": False}),
        ("merge_backward_rows", {"DORA": False}),
        ("merge_backward_columns", {"EXACT": False}),
    ],
)
def test_a_sample_notices_a_wrong_kernel(kernel: str, changed: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device(DEVICE)
    expected = sample(Merge, device, 48)
    assert alike(sample(FusedMerge, device, 48), expected)
    real = fused_merge.launch

    def wrong(one: Any, *arguments: Any, **constants: Any) -> None:
        if one is getattr(kernels, kernel):
            constants |= changed
        real(one, *arguments, **constants)

    monkeypatch.setattr(fused_merge, "launch", wrong)
    assert not alike(sample(FusedMerge, device, 48), expected)


COMPILE = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mtbert.fast.cuda import merge_kernels as kernels
from mtbert.fast.cuda.fused_merge import OF_COLUMNS, OF_ROWS

TYPES = {"gradients": ("*bf16",) * 48, "merged": "*bf16", "scale": "fp32"}
MODES = {
    kernels.merge: ({"DORA": False}, {"DORA": True}),
    kernels.merge_backward_rows: tuple({"DORA": a, "EXACT": b} for a, b in ((False, False), (True, False), (True, True))),
    kernels.merge_backward_columns: ({"EXACT": False}, {"EXACT": True}),
}
for rank, (kernel, modes) in itertools.product((16, 32), MODES.items()):
    block = dict(OF_COLUMNS if kernel is kernels.merge_backward_columns else OF_ROWS)
    warps = block.pop("num_warps")
    for mode in modes:
        constants = {"OUT": 768, "IN": 3072, "RANK": rank, "RANKS": rank, **block, **mode}
        kinds = {name: "constexpr" if name in constants else TYPES.get(name, "*fp32") for name in kernel.arg_names}
        aligned = {}
        for place, kind in enumerate(kinds.values()):
            keys = [(place, n) for n in range(len(kind))] if isinstance(kind, tuple) else [(place,)] * (kind[0] == "*")
            aligned |= dict.fromkeys(keys, [["tt.divisibility", 16]])
        for generation in (80, 90):
            source, target = ASTSource(kernel, kinds, constants, aligned), GPUTarget("cuda", generation, 32)
            made = triton.compile(source, target, options={"num_warps": warps})
            assert len(made.asm["cubin"]) > 1000 and ".local" not in made.asm["ptx"], kernel
            assert made.metadata.shared < 64 * 1024, kernel
"""


def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """To machine code of Ampere and Hopper, by the assembler that Triton brings; in shared memory that any GPU with bf16 has."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
