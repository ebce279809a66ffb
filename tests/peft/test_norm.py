"""The norm's kernels against the norm of W0 + s B A formed in full, in fp64, with autograd's gradients."""

import math

import pytest
import torch
from torch import Tensor

from mtbert.kernels import build
from mtbert.peft import norm
from mtbert.peft.norm import TINY, norms, norms_backward

SCALE = 0.75


class Layers:
    """N layers in the middle of training, and gradients that reach them."""

    def __init__(self, layers: int, outputs: int, inputs: int, rank: int, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(layers + outputs + inputs + rank)

        def randn(*shape: int, std: float = 1.0) -> tuple[Tensor, ...]:
            return tuple(std * torch.randn(shape, generator=draw) for _ in range(layers))

        # Values of `dtype`, so that what is rounded on the way is only what the product rounds.
        self.w = tuple(w.to(dtype).float() for w in randn(outputs, inputs, std=0.1))
        self.a = tuple(a.to(dtype).float() for a in randn(rank, inputs, std=0.1))
        self.b, self.m = randn(outputs, rank, std=0.3), randn(outputs)
        self.g_factor = torch.cat(randn(outputs))
        self.g_a, self.g_b = (
            torch.stack(randn(rank, inputs)).to(dtype),
            torch.stack(randn(outputs, rank)).to(dtype),
        )
        self.dtype = dtype

    def wide(self) -> Tensor:
        scaled_b = torch.block_diag(*(SCALE * b for b in self.b))
        return torch.cat((torch.cat(self.w), scaled_b), 1).to(self.dtype)

    def ours(self) -> list[Tensor]:
        """Factor, norm, and the gradients of A, B and m."""
        squared = tuple(w.square().sum(1) for w in self.w)
        factor, size, slope = norms(self.wide(), self.a, self.b, self.m, squared, SCALE)
        gradients = norms_backward(
            self.wide(), self.a, self.b, self.m, SCALE, size, slope, self.g_factor, self.g_a, self.g_b
        )
        return [factor, size, *gradients]

    def theirs(self) -> list[Tensor]:
        w, a, b, m = (torch.stack(parts).double() for parts in (self.w, self.a, self.b, self.m))
        for leaf in (a, b, m):
            leaf.requires_grad_()
        size = (w + SCALE * b @ a).norm(dim=2)
        factor = (m / size).flatten()
        through = torch.autograd.grad(factor, (a, b, m), self.g_factor.double())
        direct = (self.g_a.double(), SCALE * self.g_b.double(), 0)
        return [
            factor.detach(),
            size.detach().flatten(),
            *(one + other for one, other in zip(through, direct, strict=True)),
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layers", "outputs", "inputs", "rank"),
    [(1, 16, 16, 1), (1, 32, 64, 4), (3, 48, 32, 8), (3, 16, 80, 16), (2, 64, 48, 20), (1, 144, 16, 32)],
)
def test_norm_and_gradients_are_those_of_the_whole_matrix(
    layers: int, outputs: int, inputs: int, rank: int, dtype: torch.dtype, way: str
) -> None:
    work = Layers(layers, outputs, inputs, rank, dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    for ours, theirs in zip(work.ours(), work.theirs(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


def test_the_bf16_kernel_rounds_the_norm_less_than_bf16_does() -> None:
    """Its sums are fp32: only s B's and half s B's own rounding is left."""
    if not build.available():
        pytest.skip("needs g++")
    work = Layers(1, 64, 64, 16, torch.bfloat16)
    (factor, size, *_), (their_factor, their_size, *_) = work.ours(), work.theirs()
    torch.testing.assert_close(size.double(), their_size, rtol=1e-6, atol=0)
    torch.testing.assert_close(factor.double(), their_factor, rtol=1e-6, atol=0)


def test_a_layer_side_by_side_with_others_has_the_same_norm_to_the_last_bit(way: str) -> None:
    if way == "torch":
        pytest.skip("torch may sum a batch of products in another order")
    together = Layers(3, 32, 48, 8, torch.bfloat16)
    factor, size, a, b, m = together.ours()
    for n in range(3):
        alone = Layers(1, 32, 48, 8, torch.bfloat16)
        for name in ("w", "a", "b", "m"):
            setattr(alone, name, getattr(together, name)[n : n + 1])
        alone.g_factor = together.g_factor.view(3, -1)[n]
        alone.g_a, alone.g_b = together.g_a[n : n + 1], together.g_b[n : n + 1]
        expected = [factor.view(3, -1)[n], size.view(3, -1)[n], a[n : n + 1], b[n : n + 1], m[n : n + 1]]
        for ours, theirs in zip(alone.ours(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("row", [0.0, 1e-13])
def test_a_row_that_vanishes_is_held_and_passes_nothing_on(row: float, way: str) -> None:
    work = Layers(1, 16, 16, 4, torch.float32)
    work.w[0][3] *= row
    work.b[0][3] *= row
    work.g_b[0, 3] = 0
    factor, size, g_a, g_b, g_m = work.ours()
    assert float(size[3]) == pytest.approx(TINY, rel=1e-6, abs=0)
    assert torch.isfinite(torch.cat([t.flatten() for t in (factor, size, g_a, g_b, g_m)])).all(), way
    assert not g_b[0, 3].any()


@pytest.mark.parametrize("where", ["w", "b", "m"])
def test_nan_stays_nan(where: str, way: str) -> None:
    work = Layers(1, 32, 16, 4, torch.float32)
    getattr(work, where)[0][5] = math.nan
    factor, size, g_a, g_b, _ = work.ours()
    assert bool(factor[5].isnan()), way
    assert bool(size[5].isnan()) == (where != "m")
    assert bool(g_a.isnan().any()), "it reaches A, which all rows share"
    assert bool(g_b[0, 5].isnan().all())
    assert int(factor.isnan().sum()) == 1


def test_threads_do_not_change_a_bit() -> None:
    if not build.available():
        pytest.skip("needs g++")
    threads, work = torch.get_num_threads(), Layers(3, 64, 64, 16, torch.bfloat16)
    try:
        torch.set_num_threads(1)
        alone = work.ours()
        torch.set_num_threads(2)
        for one, other in zip(alone, work.ours(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    finally:
        torch.set_num_threads(threads)


def fits(wide: Tensor | None = None, a: Tensor | None = None, b: Tensor | None = None, m: Tensor | None = None) -> bool:
    """Whether the kernels take three layers, of which one part is another."""
    wide = torch.zeros(96, 16 + 12, dtype=torch.bfloat16) if wide is None else wide
    a, b = torch.zeros(4, 16) if a is None else a, torch.zeros(32, 4) if b is None else b
    return norm._fits(wide, (a,) * 3, (b,) * 3, (torch.zeros(32) if m is None else m,) * 3)


def test_the_kernels_take_what_they_can_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available", lambda: True)
    assert fits(), "whatever the rank"
    assert fits(wide=torch.zeros(96, 28))
    for dtype in (torch.float64, torch.float16):
        assert not fits(wide=torch.zeros(96, 28, dtype=dtype))
    assert not fits(wide=torch.zeros(96, 28, device="meta"))
    assert not fits(a=torch.zeros(4, 16, dtype=torch.float64))
    assert not fits(a=torch.zeros(4, 24)), "inputs go by sixteen"
    assert not fits(b=torch.zeros(24, 4)), "and so do outputs"
    assert not fits(a=torch.zeros(16, 4).T)
    assert not fits(b=torch.zeros(4, 32).T)
    assert not fits(m=torch.zeros(64)[::2])
    monkeypatch.setattr(build, "available", lambda: False)
    assert not fits()
