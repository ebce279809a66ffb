"""Make a batch from rows of a prepared split: the sequences that its task needs, as one token stream. Shapes: B examples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.shares import Share
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
        share: None for a whole batch.
    """

    task: str
    views: tuple[str, ...]
    stream: TokenStream
    labels: Tensor | None
    share: Share | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        labels = None if self.labels is None else moved(self.labels, device)
        return Batch(self.task, self.views, self.stream.to(device), labels, self.share)

    def part(self, process: int, processes: int, passes: int = 1) -> "Batch":
        """The share of one of several processes: each takes every `processes`-th example of this labelled batch.

        A process that would get none takes the first example with weight 0, so that every process has a gradient for the
        same parameters.

        Args:
            passes: how many times the batch repeats its examples, one pass after another; the share repeats its own as often.
        """
        assert self.labels is not None, "training splits are labelled"
        examples = len(self.labels)
        once = examples // passes
        chosen = np.arange(process, once, processes)
        weight = len(chosen) / once
        if not len(chosen):
            chosen = np.zeros(1, np.int64)
        chosen = np.concatenate([once * n + chosen for n in range(passes)])
        places = (view * examples + int(example) for view in range(len(self.views)) for example in chosen)
        stream = stream_of([self.stream.sequence(n) for n in places])
        share = Share.of(process, weight, self.stream, stream, chosen, examples)
        return Batch(self.task, self.views, stream, self.labels[torch.from_numpy(chosen)], share)


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
    return Batch(task, views, stream_of(sequences), labels)


def filled_to(tokens: int, least: int = ROWS, share: int = 32) -> int:
    """T is rounded up to a multiple of this: 1/share of the largest power of two up to `tokens`, but at least `least`.

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


def row_tokens(split: Split, views: Iterable[str], max_tokens: int) -> np.ndarray:
    """Tokens of each row, (R,) int64, summed over the views; special tokens count, filler does not."""
    first = np.diff(split.offsets1)
    second = np.zeros_like(first) if split.offsets2 is None else np.diff(split.offsets2)
    tokens = {"u": first + 2, "v": second + 2, "c": first + second + 3}
    total: np.ndarray = np.sum([np.minimum(tokens[view], max_tokens) for view in views], axis=0)
    return total


def stream_of(sequences: Sequence[tuple[np.ndarray, int]]) -> TokenStream:
    """Sequences with special tokens, each with the length of its first segment, as one stream of a usual length."""
    return lay_out(sequences, filled_to(sum(len(ids) for ids, _ in sequences)))


def _row(ids: np.ndarray, offsets: np.ndarray, row: int) -> np.ndarray:
    return ids[offsets[row] : offsets[row + 1]]
