"""A batch is one token stream: all its sequences end to end, without padding.

Shapes: N sequences, F filler sequences after them, T tokens in all, L tokens in one sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.seal import remedy


@dataclass(frozen=True)
class TokenStream:
    """The tokens of N sequences, shortest sequence first; sequences of equal length lie together.

    Attributes:
        ids: wordpieces, (T,) int64.
        positions: index of each token in its sequence, (T,) int64.
        segments: 0 for a first sentence, 1 for the second sentence of a pair, (T,) int64.
        offsets: the first token of each sequence, then of each filler sequence, then T, (N + F + 1,) int64.
        rank: (N,) int64; the caller's sequence n is the stream's sequence rank[n], so `pooled[rank]` restores order.
        tokens: real tokens, i.e. T without filler.
        longest: an upper bound of L.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    offsets: Tensor
    rank: Tensor
    tokens: int
    longest: int

    def to(self, device: torch.device) -> "TokenStream":
        """The same stream on another device."""
        tensors = (self.ids, self.positions, self.segments, self.offsets, self.rank)
        ids, positions, segments, offsets, rank = (moved(tensor, device) for tensor in tensors)
        return TokenStream(ids, positions, segments, offsets, rank, self.tokens, self.longest)

    def sequence(self, n: int) -> tuple[np.ndarray, int]:
        """The caller's sequence n as `lay_out` takes it: its ids, and the index where segment 1 starts."""
        first, end = self.offsets[self.rank[n] :][:2].tolist()
        return self.ids[first:end].numpy(), int((self.segments[first:end] == 0).sum())


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A copy to a GPU starts from pinned memory and does not block."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Wrapper:
    """Puts [CLS] and [SEP] around wordpieces and truncates long sequences.

    Args:
        cls, sep: ids of the two special tokens.
        max_tokens: longest sequence, special tokens included.
    """

    def __init__(self, cls: int, sep: int, max_tokens: int) -> None:
        self.cls, self.sep, self.max_tokens = cls, sep, max_tokens

    def single(self, pieces: np.ndarray) -> tuple[np.ndarray, int]:
        """[CLS] s [SEP], and its length: the index where segment 1 would start."""
        pieces = pieces[: self.max_tokens - 2]
        ids = np.concatenate(([self.cls], pieces, [self.sep]))
        return ids, len(ids)

    def pair(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, int]:
        """[CLS] s1 [SEP] s2 [SEP] (section 4.2), the longer one truncated first; and the index where segment 1 starts."""
        room = self.max_tokens - 3
        first = first[: max(room - room // 2, room - len(second))]
        second = second[: room - len(first)]
        ids = np.concatenate(([self.cls], first, [self.sep], second, [self.sep]))
        return ids, len(first) + 2


def lay_out(sequences: Sequence[tuple[np.ndarray, int]], multiple: int = 1) -> TokenStream:
    """Sort the sequences by length and lay them end to end; ties keep their order.

    Args:
        sequences: N pairs of ids (L,) and the index at which segment 1 starts, as `Wrapper` gives them.
        multiple: T is rounded up to a multiple of this by filler: one-token sequences of id 0 that no rank points to. A
            CPU's matrix library compiles a kernel for each new T, which costs more than the product itself, so fewer
            values of T are faster.
    """
    lengths = np.array([len(ids) for ids, _ in sequences])
    order = np.argsort(lengths, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ids = np.concatenate([sequences[n][0] for n in order]).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths[order])))
    positions = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths[order])
    second = np.repeat(np.array([sequences[n][1] for n in order]), lengths[order])
    segments = (positions >= second).astype(np.int64)
    filler = -len(ids) % multiple
    padded = (np.pad(array, (0, filler)) for array in (ids, positions, segments))
    offsets = np.concatenate((offsets, offsets[-1] + np.arange(1, filler + 1)))
    tensors = [torch.from_numpy(array) for array in (*padded, offsets, rank)]
    return TokenStream(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], len(ids), int(lengths.max()))


def wrapper_for(tokenizer: Path, max_tokens: int, special_tokens: tuple[str, str]) -> Wrapper:
    """The wrapper for a prepared tokenizer.json.

    Args:
        max_tokens: longest sequence, special tokens included.
        special_tokens: the tokens that open and end a sequence in the encoder's family, such as [CLS] and [SEP].

    Raises:
        MtbertError: the file is missing or damaged, or the tokenizer lacks one of the special tokens.
    """
    from mtbert.corpus.tokenizer import read_tokenizer

    folder = tokenizer.parent
    known = read_tokenizer(tokenizer, remedy(folder), remedy(folder, folder))
    cls, sep = map(known.token_to_id, special_tokens)
    if cls is None or sep is None:
        raise MtbertError(
            f"{tokenizer}: has no {' or '.join(special_tokens)}; use the tokenizer.json that comes with the encoder"
        )
    return Wrapper(cls, sep, max_tokens)
