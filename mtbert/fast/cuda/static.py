"""Batches whose shapes do not depend on their sequences' lengths, in memory that stays where it is: what a CUDA graph asks for.

Shapes: B examples, N sequences, F sequences of filler, T rows of the stream.
"""

import numpy as np
import torch

from mtbert.data.batches import Batch, filled_to
from mtbert.data.tokens import TokenStream

FILLER = 64  # tokens of a filler sequence at most: attention's cost grows with the square
LARGEST = 2**15  # rows, beyond which a batch has no static shape


def rows_for(tokens: int) -> int | None:
    """T of the static stream for so many tokens; None for more than `LARGEST`.

    Multiples of 64 and of a sixteenth of the next lower power of two: at most a sixteenth of filler from 1,024 rows on, and few
    sizes. There is always some filler, so that none of the shapes is empty.
    """
    step = _step(tokens)
    rows = tokens // step * step + step
    return rows if rows <= LARGEST else None


class StaticBatch:
    """A place on a device for batches of one shape: `fill` writes the next one's values over those of the last.

    Args:
        like: a batch of the shape: its task, views and number of examples are those of all that follow.
        rows: T, as `rows_for` gives it.
        longest: tokens of the longest sequence that may follow.
        device: where the batch lies.

    Attributes:
        batch: what the model is given.
    """

    def __init__(self, like: Batch, rows: int, longest: int, device: torch.device) -> None:
        assert like.labels is not None, "training splits are labelled"
        self._rows, self._filler, self._device = rows, -(-_step(rows - 1) // FILLER), device
        sequences, examples = len(like.stream.rank), len(like.labels)
        self._sizes = [rows, rows, rows, sequences, examples, sequences + self._filler + 1]
        # One buffer of 32-bit words is one copy at each step.
        self._words = torch.zeros(sum(self._sizes), dtype=torch.int32, device=device)
        ids, positions, segments, rank, labels, offsets = self._words.split(self._sizes)
        stream = TokenStream(ids, positions, segments, offsets, rank, rows, max(longest, FILLER))
        self.batch = Batch(like.task, like.views, stream, labels.view(torch.float32))

    def fill(self, batch: Batch) -> None:
        """Write a batch of this shape, which lies on the host, into the place, without blocking."""
        stream, tokens = batch.stream, batch.stream.tokens
        assert batch.labels is not None, "training splits are labelled"
        filler = np.linspace(tokens, self._rows, self._filler + 1)[1:]
        words = np.zeros(len(self._words), np.int32)
        parts = np.split(words, np.cumsum(self._sizes)[:-1])
        for part, tensor in zip(parts[:3], (stream.ids, stream.positions, stream.segments), strict=True):
            part[:tokens] = tensor[:tokens].numpy()
        parts[3][:] = stream.rank.numpy()
        parts[4].view(np.float32)[:] = batch.labels.numpy()
        parts[5][:] = np.concatenate((stream.offsets[: len(stream.rank) + 1].numpy(), filler))
        staged = torch.from_numpy(words)
        # Memory pinned anew: the copy of the step before may still read its own.
        self._words.copy_(staged.pin_memory() if self._device.type == "cuda" else staged, non_blocking=True)


def _step(tokens: int) -> int:
    """What T is a multiple of, and the most filler that a stream of up to so many tokens has."""
    return filled_to(tokens, FILLER, 16)
