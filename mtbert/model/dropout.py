"""Dropout (Srivastava et al. 2014) whose masks are a function of (seed, step): a resumed run draws the same ones."""

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 16  # random words of 16 bits that the generator makes at a time
SLACK = 16  # unused words after each mask, since a kernel may read whole vectors


class Noise:
    """The source of all of a model's dropout masks; call `reseed` before each step.

    The masks come from Philox, a counter-based generator (Salmon et al. 2011): with the key and the counter they can be
    drawn in any order.
    """

    def __init__(self) -> None:
        self.reseed(0, 0)

    def reseed(self, seed: int, step: int) -> None:
        """Make the masks drawn from now on a function of (seed, step) and of the order in which they are drawn."""
        self.key: np.ndarray = np.random.Philox(np.random.SeedSequence([seed, step])).state["state"]["key"]
        self._drawn = 0

    def claim(self, count: int) -> tuple[int, int]:
        """Reserve random words for `count` elements; returns the number of their first block, and how many blocks they take."""
        first, blocks = self._drawn, -(-(count + SLACK) // BLOCK)
        self._drawn += blocks
        return first, blocks

    def keep(self, count: int, p: float) -> Tensor:
        """Factors, (count,) fp32: 0 with probability p, else 1 / (1 - p)."""
        first, blocks = self.claim(count)
        words = np.random.Philox(key=self.key, counter=first).random_raw(BLOCK // 4 * blocks).view(np.int16)
        least, scale = threshold(p)
        return torch.from_numpy(np.where(words[:count] >= least, np.float32(scale), np.float32(0)))

    def drop(self, x: Tensor, p: float, real: Tensor | None = None) -> Tensor:
        """Set elements of x to zero with probability p and scale the others; arguments as for `Dropout`."""
        if real is None:
            keep = self.keep(x.numel(), p).view(x.shape).to(x)
        else:
            real = real.expand(x.shape)
            keep = torch.zeros_like(x).masked_scatter(real, self.keep(int(real.sum()), p).to(x))
        return x * keep


def threshold(p: float) -> tuple[int, float]:
    """The smallest random word, as a signed number, that keeps its element, and 1 / (1 - p). p is rounded to 1/65536."""
    dropped = min(round(p * 65536), 65535)
    return dropped - 32768, 65536 / (65536 - dropped)


class Dropout(nn.Module):
    """Zero elements with probability p while training, and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float, noise: Noise) -> None:
        super().__init__()
        self.p = p
        self.noise = noise

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """x with dropout.

        Args:
            real: a mask that broadcasts to x and is False at padding. Padding becomes zero and draws no random numbers.
        """
        return self.noise.drop(x, self.p, real) if self.training and self.p > 0 else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
