"""The encoder's forward on CUDA with the plain modules, and torch's flash attention for sequences of any lengths."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.shares import Share, Spans
from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda.merged import weight_and_bias
from mtbert.model.bert import BertEncoder, SelfAttention
from mtbert.model.dropout import Noise


class Ragged(NamedTuple):
    """A token stream's sequences, as the flash kernel reads them.

    Attributes:
        offsets: the first token of each sequence (filler included), then T, int32.
        longest: tokens of the longest sequence, or more.
    """

    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, stream: TokenStream) -> "Ragged":
        return cls(stream.offsets.int(), stream.longest)


class DeviceNoise(Noise):
    """Dropout by CUDA's own generator, seeded at each step: masks drawn on the host would have to be waited for."""

    def reseed(self, seed: int, step: int, share: Share | None = None) -> None:
        if torch.cuda.is_available():
            # Of several processes each draws masks of its own: they depend on the number of processes.
            process = 0 if share is None else share.process
            words = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)
            torch.cuda.manual_seed(int(words[0] >> 1))

    def drop(self, x: Tensor, p: float, real: Tensor | None = None, spans: Spans | None = None) -> Tensor:
        return F.dropout(x, p)

    def __reduce__(self) -> tuple[type[Noise], tuple[()]]:
        return Noise, ()  # a copied model has no engine


def encode(encoder: BertEncoder, stream: TokenStream, first_only: bool) -> Tensor:
    """Last hidden states, as from `BertEncoder.forward`."""
    x_TD, ragged = encoder.embeddings(stream), Ragged.of(stream)
    for n, layer in enumerate(encoder.stack(), start=1):
        rows = stream.offsets[:-1] if first_only and n == encoder.config.layers else None
        attended = layer.dropout(_attend(layer.attention, x_TD, ragged, rows))
        x_TD = layer.attention_norm((x_TD if rows is None else x_TD.index_select(0, rows)) + attended)
        x_TD = layer.feed_forward_norm(x_TD + layer.dropout(layer.feed_forward(x_TD)))
    return x_TD


def _attend(attention: SelfAttention, x_TD: Tensor, ragged: Ragged, rows: Tensor | None) -> Tensor:
    linears = (attention.query, attention.key, attention.value)
    parts = [weight_and_bias(linear) for linear in linears]
    if None not in parts:
        weight, bias = (torch.cat(tensors) for tensors in zip(*filter(None, parts), strict=True))
        qkv_TE = F.linear(x_TD, weight, bias)
    else:
        qkv_TE = torch.cat([linear(x_TD) for linear in linears], dim=-1)
    mixed_TD = flash_attention(qkv_TE, ragged, attention.heads, attention.dropout.p * attention.training)
    projected: Tensor = attention.output(mixed_TD if rows is None else mixed_TD.index_select(0, rows))
    return projected


def flash_attention(qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(K)) v within each sequence, (T, D); q, k and v are side by side, E = 3 D, in bf16.

    `torch.nn.attention.varlen` calls the same kernel, but without dropout.
    """
    q, k, v = qkv_TE.view(len(qkv_TE), 3, heads, -1).unbind(1)
    offsets, longest = ragged
    mixed: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, offsets, offsets, longest, longest, dropout, False, False
    )[0]
    return mixed.flatten(1)
