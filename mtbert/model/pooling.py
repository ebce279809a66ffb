"""From token states to one vector per sequence (section 4.2). Shapes: T tokens, N sequences, D hidden.

Each function takes the last hidden states (T, D) and returns (N, D), in stream order.
"""

import torch
from torch import Tensor

from mtbert.data.tokens import Block, TokenStream


def pool(pooling: str, x_TD: Tensor, stream: TokenStream) -> Tensor:
    """One vector per sequence of the stream, by cls, mean or max."""
    if stream.ragged is None:
        return POOLINGS[pooling](x_TD, stream.blocks)
    return pool_segments(pooling, x_TD, stream.ragged.offsets[: len(stream.rank) + 1])


def pool_segments(pooling: str, x_TD: Tensor, offsets: Tensor) -> Tensor:
    """The same with shapes that do not depend on the lengths, for CUDA; slower on a CPU.

    A segment reduction adds a sequence's tokens in their order; `index_add` would do it in any order, each time with other last bits.

    Args:
        offsets: where the N sequences start, and the last one's end, (N + 1,) int32.
    """
    if pooling == "cls":
        return x_TD.index_select(0, offsets[:-1])
    # `unsafe` leaves out a look at the offsets' values, for which the host would have to wait.
    return torch.segment_reduce(x_TD, pooling, offsets=offsets, axis=0, unsafe=True)


def first_token(x_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """The state of [CLS]."""
    return torch.cat([x_nLD[:, 0] for x_nLD in _sequences(x_TD, blocks)])


def mean(x_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """The mean over a sequence's tokens, [CLS] and [SEP] included, as sentence-transformers counts them."""
    return torch.cat([x_nLD.mean(1) for x_nLD in _sequences(x_TD, blocks)])


def maximum(x_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """The largest value of each feature over a sequence's tokens."""
    return torch.cat([x_nLD.amax(1) for x_nLD in _sequences(x_TD, blocks)])


POOLINGS = {"cls": first_token, "mean": mean, "max": maximum}


def _sequences(x_TD: Tensor, blocks: tuple[Block, ...]) -> list[Tensor]:
    parts = x_TD.split([block.count * block.length for block in blocks])
    return [part.view(*block, -1) for part, block in zip(parts, blocks, strict=True)]
