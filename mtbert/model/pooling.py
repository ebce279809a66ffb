"""From token states to one vector per sequence (section 4.2). Shapes: T tokens, N sequences, D hidden.

Each function takes the last hidden states (T, D) and the stream's blocks and returns (N, D), in stream order.
"""

import torch
from torch import Tensor

from mtbert.data.tokens import Block


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
