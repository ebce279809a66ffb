"""Dropout masks: their rate, their scale, and that (seed, step) alone decides them."""

import numpy as np
import pytest
import torch

from mtbert.kernels import build
from mtbert.model.dropout import SLACK, Dropout, Noise


def masks(seed: int, step: int, p: float = 0.5, count: int = 1000) -> torch.Tensor:
    noise = Noise()
    noise.reseed(seed, step)
    layer = Dropout(p, noise)
    return torch.cat([layer(torch.ones(count)), layer(torch.ones(count))])


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_rate_scale_and_expectation(p: float) -> None:
    noise = Noise()
    noise.reseed(3, 4)
    count = 200_000
    out = Dropout(p, noise)(torch.ones(count))
    share = float((out == 0).double().mean())
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1 / 65536
    kept = out[out != 0]
    assert float(kept.min()) == float(kept.max()) == pytest.approx(1 / (1 - p), rel=2e-4)
    assert float(out.double().mean()) == pytest.approx(1, abs=5 * (p / (1 - p) / count) ** 0.5 + 1e-6)


def test_masks_are_a_function_of_seed_and_step() -> None:
    assert torch.equal(masks(1, 2), masks(1, 2))
    for other in (masks(1, 3), masks(2, 2), masks(2, 1), masks(0, 0)):
        agree = float((masks(1, 2) == other).double().mean())
        assert 0.4 < agree < 0.6, "other steps' masks are unrelated"


def test_masks_within_a_step_differ() -> None:
    first, second = masks(1, 2).chunk(2)
    assert 0.4 < float((first == second).double().mean()) < 0.6


def test_masks_do_not_depend_on_the_global_generators() -> None:
    expected = masks(1, 2)
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(3)
    assert torch.equal(masks(1, 2), expected)


def test_a_drawn_step_leaves_no_trace_in_the_next() -> None:
    noise = Noise()
    noise.reseed(1, 1)
    noise.keep(777, 0.3)
    noise.reseed(1, 2)
    fresh = Noise()
    fresh.reseed(1, 2)
    assert torch.equal(noise.keep(50, 0.3), fresh.keep(50, 0.3))


def test_neighbouring_elements_are_independent() -> None:
    dropped = (masks(5, 6, count=100_000) == 0).double()
    for lag in (1, 2, 3, 4, 64):
        left, right = dropped[:-lag], dropped[lag:]
        assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.015


def test_nothing_happens_outside_training_or_at_zero() -> None:
    x = torch.randn(7, 3)
    assert Dropout(0.5, Noise()).eval()(x) is x
    assert Dropout(0.0, Noise()).train()(x) is x


def test_shape_dtype_and_gradient() -> None:
    noise = Noise()
    noise.reseed(0, 1)
    x = torch.ones(6, 5, dtype=torch.bfloat16, requires_grad=True)
    out = Dropout(0.5, noise)(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach()), "the gradient passes where the value passed, with the same factor"


@pytest.mark.parametrize("counts", [[1], [16], [5, 1000, 1], [4096, 48, 48, 65]])
def test_words_are_those_of_numpy_s_philox(way: str, counts: list[int]) -> None:
    noise = Noise()
    noise.reseed(11, 12)
    generator = np.random.Philox(np.random.SeedSequence([11, 12]))
    for count in counts:
        words, threshold, _ = noise.mask(count, 0.25)
        assert len(words) >= count + SLACK
        assert np.array_equal(words.numpy().view(np.uint64), generator.random_raw(len(words) // 4))
        assert threshold == 16384 - 32768


@pytest.mark.parametrize("p", [0.0, 1e-5, 0.1, 0.5, 0.9, 1.0])
def test_a_mask_and_its_factors_agree_and_meet_the_rate(way: str, p: float) -> None:
    count, noise = 100_000, Noise()
    noise.reseed(1, 2)
    words, threshold, scale = noise.mask(count, p)
    noise.reseed(1, 2)
    keep = noise.keep(count, p)
    assert torch.equal(keep, (words[:count] >= threshold) * scale)
    share = float((keep == 0).double().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / count) ** 0.5 + 2 / 65536
    assert bool(torch.isfinite(keep).all())


@pytest.mark.skipif(not build.available(), reason="needs g++")
def test_words_do_not_depend_on_the_threads() -> None:
    drawn = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            noise = Noise()
            noise.reseed(1, 2)
            drawn.append(torch.cat([noise.mask(777, 0.1).words, noise.mask(50_000, 0.1).words]))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
