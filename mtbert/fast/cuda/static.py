"""Batches for CUDA graphs: at fixed addresses, with shapes that do not depend on the sequences' lengths.

Shapes: B examples, N sequences, F filler sequences, T rows (tokens) of the stream.
"""

import numpy as np
import torch

from mtbert.data.batches import Batch, filled_to
from mtbert.data.tokens import TokenStream

FILLER = 64  # most tokens of a filler sequence, since attention's cost grows with the square
LARGEST = 2**15  # batches of more rows have no static shape


def rows_for(tokens: int) -> int | None:
    """T of the static stream for this many tokens; None if it is more than `LARGEST`.

    T is a multiple of 64 and of a sixteenth of the next lower power of two: few sizes, and at most a sixteenth of
    filler from 1,024 rows on. There is always some filler, so that no shape is empty.
    """
    step = _step(tokens)
    rows = tokens // step * step + step
    return rows if rows <= LARGEST else None


class StaticBatch:
    """A buffer on a device for batches of one shape; `fill` overwrites it with the next batch.

    Args:
        like: a batch with the task, views and number of examples of all batches to come.
        rows: T, from `rows_for`.
        longest: an upper bound of the tokens in a sequence.
        device: the buffer's device.

    Attributes:
        batch: the buffer as the model's input.
    """

    def __init__(self, like: Batch, rows: int, longest: int, device: torch.device) -> None:
        assert like.labels is not None, "training splits are labelled"
        self._rows, self._filler, self._device = rows, -(-_step(rows - 1) // FILLER), device
        sequences, examples = len(like.stream.rank), len(like.labels)
        self._sizes = [rows, rows, rows, sequences, examples, sequences + self._filler + 1]
        # One buffer of 32-bit words, so that a step needs one copy.
        self._words = torch.zeros(sum(self._sizes), dtype=torch.int32, device=device)
        ids, positions, segments, rank, labels, offsets = self._words.split(self._sizes)
        stream = TokenStream(ids, positions, segments, offsets, rank, rows, max(longest, FILLER))
        self.batch = Batch(like.task, like.views, stream, labels.view(torch.float32))

    def fill(self, batch: Batch) -> None:
        """Copy a batch of this shape from host memory into the buffer, without blocking."""
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
        # Newly pinned memory: the previous step's copy may still be reading its own.
        self._words.copy_(staged.pin_memory() if self._device.type == "cuda" else staged, non_blocking=True)


def _step(tokens: int) -> int:
    """The step between values of T around this many tokens, which is also the most filler."""
    return filled_to(tokens, FILLER, 16)
