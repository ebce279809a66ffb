"""From token states to one vector per sequence (section 4.2). Shapes: T tokens of the stream, N sequences, D hidden.

Each function takes the last hidden states (T, D) and offsets (N + 1,), where sequence n is rows offsets[n] to offsets[n
+ 1] - 1. It returns (N, D) in stream order.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the settings read the names of the poolings without importing torch
    from torch import Tensor

    from mtbert.data.tokens import TokenStream


def pool(pooling: str, x_TD: "Tensor", stream: "TokenStream") -> "Tensor":
    """One vector per sequence of the stream, by cls, mean or max."""
    return POOLINGS[pooling](x_TD, stream.offsets[: len(stream.rank) + 1])


def first_token(x_TD: "Tensor", offsets: "Tensor") -> "Tensor":
    """The state of [CLS]."""
    return x_TD.index_select(0, offsets[:-1])


def mean(x_TD: "Tensor", offsets: "Tensor") -> "Tensor":
    """The mean over a sequence's tokens, [CLS] and [SEP] included, as sentence-transformers counts them."""
    return _reduce("mean", x_TD, offsets)


def maximum(x_TD: "Tensor", offsets: "Tensor") -> "Tensor":
    """The largest value of each feature over a sequence's tokens."""
    return _reduce("max", x_TD, offsets)


POOLINGS = {"cls": first_token, "mean": mean, "max": maximum}


def _reduce(reduction: str, x_TD: "Tensor", offsets: "Tensor") -> "Tensor":
    import torch

    # It adds tokens in their order, so equal inputs give equal bits; `index_add` on CUDA does not.
    # `unsafe` skips a check of the offsets' values, which would make the host wait for the device.
    return torch.segment_reduce(x_TD, reduction, offsets=offsets, axis=0, unsafe=True)
