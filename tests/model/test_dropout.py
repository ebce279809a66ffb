"""Dropout masks: their rate and scale, and that they depend only on (seed, step) and the order of drawing."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.model.dropout import BLOCK, SLACK, Dropout, Noise


def seeded(seed: int, step: int) -> Noise:
    noise = Noise()
    noise.reseed(seed, step)
    return noise


def masks(seed: int, step: int, count: int = 1000) -> Tensor:
    layer = Dropout(0.5, seeded(seed, step))
    return torch.cat([layer(torch.ones(count)), layer(torch.ones(count))])


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.3, 0.5, 0.9])
def test_rate_scale_and_expectation(p: float) -> None:
    count = 200_000
    out = Dropout(p, seeded(3, 4))(torch.ones(count))
    share = float((out == 0).double().mean())
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1 / 65536
    kept = out[out != 0]
    assert float(kept.min()) == float(kept.max()) == pytest.approx(1 / (1 - p), rel=2e-4)
    assert float(out.double().mean()) == pytest.approx(1, abs=5 * (p / (1 - p) / count) ** 0.5 + 1e-5)
    assert bool(torch.isfinite(Dropout(1.0, seeded(3, 4))(torch.ones(99))).all())


def test_masks_are_a_function_of_seed_and_step() -> None:
    expected = masks(1, 2)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(masks(1, 2), expected), "not of the global generators"
    first, second = expected.chunk(2)
    unrelated = [(expected, masks(1, 3)), (expected, masks(2, 2)), (expected, masks(2, 1)), (first, second)]
    for one, other in unrelated:
        assert 0.4 < float((one == other).double().mean()) < 0.6
    noise = seeded(1, 1)
    noise.keep(777, 0.3)
    noise.reseed(1, 2)
    assert torch.equal(noise.keep(50, 0.3), seeded(1, 2).keep(50, 0.3)), "a step leaves no trace in the next"


def test_neighbouring_elements_are_independent() -> None:
    dropped = (masks(5, 6, count=100_000) == 0).double()
    for lag in (1, 2, 3, 4, 64):
        assert abs(float(torch.corrcoef(torch.stack([dropped[:-lag], dropped[lag:]]))[0, 1])) < 0.015


@pytest.mark.parametrize("counts", [[1], [16], [5, 1000, 1], [4096, 48, 48, 65]])
def test_words_are_those_of_numpy_s_philox_in_the_order_of_claims(counts: list[int]) -> None:
    noise, claims = seeded(11, 12), seeded(11, 12)
    generator, taken = np.random.Philox(np.random.SeedSequence([11, 12])), 0
    for count in counts:
        first, blocks = claims.claim(count)
        assert first == taken and BLOCK * (blocks - 1) < count + SLACK <= BLOCK * blocks
        taken += blocks
        words = generator.random_raw(BLOCK // 4 * blocks).view(np.int16)[:count]
        kept = np.where(words >= 16384 - 32768, np.float32(4 / 3), np.float32(0))
        assert torch.equal(noise.keep(count, 0.25), torch.from_numpy(kept))


def test_padding_becomes_zero_and_draws_no_numbers() -> None:
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    real = (torch.arange(4) < torch.tensor([[1], [4], [2]]))[:, None, :, None].expand(3, 1, 4, 4)
    chosen = real.expand(x.shape)
    out = Dropout(0.5, seeded(0, 1))(x, real, int(chosen.sum()))
    assert not out[~chosen].any()
    assert torch.equal(out[chosen], x[chosen] * seeded(0, 1).keep(int(chosen.sum()), 0.5))


def test_shape_dtype_and_gradient() -> None:
    x = torch.ones(6, 5, dtype=torch.bfloat16, requires_grad=True)
    out = Dropout(0.5, seeded(0, 1))(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach()), "the gradient passes where the value passed, with the same factor"
    assert Dropout(0.5, Noise()).eval()(x) is x
    assert Dropout(0.0, Noise()).train()(x) is x
