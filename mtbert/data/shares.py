"""The share of a batch that one of several processes trains on, and where it lies in the whole batch.

A dropout mask is drawn for the whole batch, and each process uses its own part of it, so that the masks do not depend on
the number of processes, except by the fast engine on CUDA.
"""

from typing import NamedTuple

import numpy as np

from mtbert.data.tokens import TokenStream


class Spans(NamedTuple):
    """Where the units of a share (tokens, for example) lie among those of the whole batch.

    Attributes:
        whole, part: number of units in the whole batch and in the share.
        spans: first unit and end of each run of units, in the share's order.
    """

    whole: int
    part: int
    spans: list[tuple[int, int]]

    @classmethod
    def of(cls, sizes: np.ndarray, chosen: np.ndarray, filler: int = 0) -> "Spans":
        """The spans of some of the whole batch's pieces.

        Args:
            sizes: units of each piece of the whole batch.
            chosen: indices of the share's pieces, in its order.
            filler: filler pieces of one unit after them. Nothing depends on their masks, so they use the first unit's.
        """
        ends = sizes.cumsum()
        spans = [(int(ends[n] - sizes[n]), int(ends[n])) for n in chosen] + [(0, 1)] * filler
        return cls(int(ends[-1]), sum(end - first for first, end in spans), spans)


class Share(NamedTuple):
    """The share of one process.

    Attributes:
        process: its number, from 0.
        weight: its part of the batch's examples; 0 for a process that has none and repeats an example of another.
        tokens, sequences: the stream's tokens and sequences, filler included.
        weights: attention weights of one head.
        examples: the batch's examples.
    """

    process: int
    weight: float
    tokens: Spans
    sequences: Spans
    weights: Spans
    examples: Spans

    @classmethod
    def of(
        cls, process: int, weight: float, whole: TokenStream, part: TokenStream, chosen: np.ndarray, examples: int
    ) -> "Share":
        """The share that consists of the examples `chosen`, of all `examples` of the batch.

        Args:
            whole, part: the streams of the batch and of the share; the views of one example are in the same order.
        """
        views = len(whole.rank) // examples
        sequences = whole.rank.numpy().reshape(views, examples)[:, chosen].ravel()
        order = np.empty_like(sequences)
        order[part.rank.numpy()] = sequences
        lengths = whole.offsets.diff().numpy()
        filler = len(part.offsets) - 1 - len(order)
        return cls(
            process,
            weight,
            tokens=Spans.of(lengths, order, filler),
            sequences=Spans.of(np.ones_like(lengths), order, filler),
            weights=Spans.of(lengths**2, order, filler),
            examples=Spans.of(np.ones(examples, np.int64), chosen),
        )

    def spans(self, unit: str, rows: int) -> Spans:
        """The spans of a mask.

        Args:
            unit: what the mask is drawn for: `weights`, `examples` or `rows`, which are tokens or sequences.
            rows: how many units the share has; tells tokens from sequences.
        """
        if unit == "rows":
            # There are fewer sequences than tokens, since a sequence has at least [CLS] and [SEP].
            return self.tokens if rows == self.tokens.part else self.sequences
        return self.weights if unit == "weights" else self.examples
