"""Dropout (Srivastava et al. 2014) whose masks are a function of (seed, step): a resumed run draws the same ones."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.data.shares import Share, Spans

BLOCK = 16  # random words of 16 bits that the generator makes at a time
SLACK = 16  # unused words after each mask, since a kernel may read whole vectors


class Noise:
    """The source of all of a model's dropout masks; call `reseed` before each step.

    The masks come from Philox, a counter-based generator (Salmon et al. 2011): with the key and the counter they can be
    drawn in any order.

    Attributes:
        share: the share of a batch that the masks are for; None if they are for the whole.
    """

    share: Share | None = None

    def __init__(self) -> None:
        self.reseed(0, 0)

    def reseed(self, seed: int, step: int, share: Share | None = None) -> None:
        """Make the masks drawn from now on a function of (seed, step) and of the order in which they are drawn.

        Args:
            share: of the batch, if several processes train on it; masks are then the share's part of the whole batch's.
        """
        self.share = share
        self.key: np.ndarray = np.random.Philox(np.random.SeedSequence([seed, step])).state["state"]["key"]
        self._drawn = 0

    def claim(self, count: int) -> tuple[int, int]:
        """Reserve random words for `count` elements; returns the number of their first block, and how many blocks they take."""
        first, blocks = self._drawn, -(-(count + SLACK) // BLOCK)
        self._drawn += blocks
        return first, blocks

    def words(self, count: int, spans: Spans | None, draw: Callable[[np.ndarray, int, int], Tensor]) -> Tensor:
        """The random words of a mask of `count` elements, followed by at least `SLACK` others, int16.

        Args:
            spans: the mask's place in that of the whole batch; None if it is the whole.
            draw: of key, first block and number of blocks; returns their words.
        """
        if spans is None:
            return draw(self.key, *self.claim(count))
        width = count // spans.part
        words = draw(self.key, *self.claim(width * spans.whole))
        return torch.cat([*(words[width * first : width * end] for first, end in spans.spans), words[:SLACK]])

    def keep(self, count: int, p: float, spans: Spans | None = None) -> Tensor:
        """Factors, (count,) fp32: 0 with probability p, else 1 / (1 - p)."""
        words = self.words(count, spans, _random_words)[:count].numpy()
        least, scale = threshold(p)
        return torch.from_numpy(np.where(words >= least, np.float32(scale), np.float32(0)))

    def drop(
        self, x: Tensor, p: float, real: Tensor | None = None, drawn: int = 0, spans: Spans | None = None
    ) -> Tensor:
        """Set elements of x to zero with probability p and scale the others; arguments as for `Dropout` and `words`."""
        if real is None:
            keep = self.keep(x.numel(), p, spans).view(x.shape).to(x)
        else:
            keep = torch.zeros_like(x).masked_scatter(real.expand(x.shape), self.keep(drawn, p, spans).to(x))
        return x * keep


def threshold(p: float) -> tuple[int, float]:
    """The smallest random word, as a signed number, that keeps its element, and 1 / (1 - p). p is rounded to 1/65536."""
    dropped = min(round(p * 65536), 65535)
    return dropped - 32768, 65536 / (65536 - dropped)


def _random_words(key: np.ndarray, first: int, blocks: int) -> Tensor:
    return torch.from_numpy(np.random.Philox(key=key, counter=first).random_raw(BLOCK // 4 * blocks).view(np.int16))


class Dropout(nn.Module):
    """Zero elements with probability p while training, and scale the others by 1 / (1 - p).

    Args:
        p: the probability.
        noise: the source of the masks.
        unit: what x consists of: `rows` for tokens or sequences, attention `weights`, or the batch's `examples`.
    """

    def __init__(self, p: float, noise: Noise, unit: Literal["rows", "weights", "examples"] = "rows") -> None:
        super().__init__()
        self.p = p
        self.noise = noise
        self.unit = unit

    def forward(self, x: Tensor, real: Tensor | None = None, drawn: int = 0) -> Tensor:
        """x with dropout.

        Args:
            real: a mask that broadcasts to x and is False at padding, which becomes zero.
            drawn: with `real`, how many random numbers to draw: as many as it has real elements, or more.
        """
        return self.noise.drop(x, self.p, real, drawn, self.spans(len(x))) if self.training and self.p > 0 else x

    def spans(self, rows: int) -> Spans | None:
        """The place of an input of `rows` rows in the whole batch; None if it is the whole."""
        share = self.noise.share
        return None if share is None else share.spans(self.unit, rows)

    def extra_repr(self) -> str:
        return f"p={self.p}"
