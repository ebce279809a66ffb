"""Make a batch from rows of a prepared split: the sequences that its task needs, as one token stream. Shapes: B examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.tokens import TokenStream, Wrapper, lay_out, moved

ROWS = 16  # T is a multiple of this, or of more from 1,024 tokens on; about 1% of T is filler


@dataclass(frozen=True)
class Batch:
    """B examples of one task.

    Attributes:
        task: its name.
        views: the sequences of each example, in order: u (first sentence), v (second sentence), c (the pair).
        stream: B * len(views) sequences; sequence k * B + b is view k of example b.
        labels: (B,) float32, or None where the split is unlabelled.
    """

    task: str
    views: tuple[str, ...]
    stream: TokenStream
    labels: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        labels = None if self.labels is None else moved(self.labels, device)
        return Batch(self.task, self.views, self.stream.to(device), labels)


def make_batch(task: str, split: Split, rows: np.ndarray, views: tuple[str, ...], wrapper: Wrapper) -> Batch:
    """Make a batch of the given rows: all their first views, then all their second ones, and so on."""
    first = [_row(split.ids1, split.offsets1, row) for row in rows]
    second = []
    if split.ids2 is not None and split.offsets2 is not None:
        second = [_row(split.ids2, split.offsets2, row) for row in rows]
    sequences = []
    for view in views:
        if view == "u":
            sequences += [wrapper.single(pieces) for pieces in first]
        elif view == "v":
            sequences += [wrapper.single(pieces) for pieces in second]
        else:
            sequences += [wrapper.pair(one, two) for one, two in zip(first, second, strict=True)]
    labels = None if split.labels is None else torch.from_numpy(np.asarray(split.labels[rows], dtype=np.float32))
    tokens = sum(len(ids) for ids, _ in sequences)
    return Batch(task, views, lay_out(sequences, filled_to(tokens)), labels)


def filled_to(tokens: int, least: int = ROWS, share: int = 32) -> int:
    """What T is rounded up to a multiple of: 1/share of the power of two below this many tokens, but at least `least`.

    Few sizes are better: the CPU's matrix library caches half a megabyte of code for every product and T, up to a
    thousand of them.
    """
    return max(least, 2 ** (tokens.bit_length() - 1) // share)


def length_grouped(split: Split, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices into `rows`, in batches of similar length; for prediction, where the order does not matter."""
    lengths = np.diff(split.offsets1)[rows]
    if split.offsets2 is not None:
        lengths = lengths + np.diff(split.offsets2)[rows]
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def views_for(features: Sequence[str]) -> tuple[str, ...]:
    """The sequences that a list of features (section 4.2) is computed from, in the order u, v, c."""
    bi = ("u", "v") if any(feature not in ("u", "c") for feature in features) else ("u",) if "u" in features else ()
    return (*bi, "c") if "c" in features else bi


def _row(ids: np.ndarray, offsets: np.ndarray, row: int) -> np.ndarray:
    return ids[offsets[row] : offsets[row + 1]]
