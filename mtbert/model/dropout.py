"""Dropout whose masks are a function of (seed, step), so that a resumed run draws what an undisturbed one draws.

On the CPU the masks come from a counter-based generator (Philox): torch's own is serial and took a sixth of a step.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.kernels import build


class Mask(NamedTuple):
    """Which elements a dropout keeps: those whose random word is at least `threshold`; they are multiplied by `scale`.

    Attributes:
        words: int16, one for each element and `SLACK` more, so that whole vectors can be read.
    """

    words: Tensor
    threshold: int
    scale: float


SLACK = 16


class Noise:
    """The one source of a model's dropout masks; `reseed` starts each step."""

    def __init__(self) -> None:
        self.reseed(0, 0)

    def reseed(self, seed: int, step: int) -> None:
        """Make all masks drawn from here on a function of (seed, step) and of the order of drawing."""
        self._bits = np.random.Philox(np.random.SeedSequence([seed, step]))
        self._key, self._drawn = torch.from_numpy(self._bits.state["state"]["key"]), 0

    def mask(self, count: int, p: float) -> Mask:
        """Keeps each of `count` elements with probability 1 - p; p is met to 1/65536."""
        dropped = min(round(p * 65536), 65535)
        blocks = -(-(count + SLACK) // 16)  # of 4 numbers of 64 bits
        words = torch.empty(blocks * 16, dtype=torch.int16)
        if build.available():
            build.library().random_words(self._key.data_ptr(), self._drawn, blocks, words.data_ptr())
        else:
            words.numpy()[:] = self._bits.random_raw(4 * blocks).view(np.int16)
        self._drawn += blocks
        return Mask(words, dropped - 32768, 65536 / (65536 - dropped))

    def keep(self, count: int, p: float) -> Tensor:
        """The same mask as factors, (count,) fp32: 0, or 1 / (1 - p)."""
        words, threshold, scale = self.mask(count, p)
        return torch.ge(words[:count], threshold, out=torch.empty(count)).mul_(scale)


class Dropout(nn.Module):
    """Zero elements with probability p while training, and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float, noise: Noise) -> None:
        super().__init__()
        self.p = p
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        keep = self.factors(x.numel(), x)
        return x if keep is None else x * keep.to(x.dtype).view(x.shape)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + dropout(y) in x's type, for a residual sum: one pass over memory instead of three."""
        if x.device.type != "cpu":
            return x + self(y)
        keep = self.factors(y.numel(), y)
        return x + y if keep is None else _AddScaled.apply(x, y, keep.view(y.shape))

    def mask(self, count: int) -> Mask | None:
        """For our own kernels, which run on the CPU; None where nothing is dropped."""
        return self.noise.mask(count, self.p) if self.training and self.p > 0 else None

    def factors(self, count: int, like: Tensor) -> Tensor | None:
        """(count,) fp32 factors, 0 or 1 / (1 - p), on `like`'s device; None where nothing is dropped."""
        if not self.training or self.p == 0:
            return None
        if like.device.type != "cpu":
            return F.dropout(torch.ones(count, device=like.device), self.p)
        return self.noise.keep(count, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _AddScaled(torch.autograd.Function):
    """x + y * factors, where y may be of a narrower type; the factors are constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        ctx.dtype = y.dtype
        return torch.addcmul(x, y, factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grad, (grad * factors).to(ctx.dtype), None
