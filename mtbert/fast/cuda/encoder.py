"""The encoder's forward on CUDA, over a token stream without padding."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.shares import Share, Spans
from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda.passes import Passes, Ragged, States
from mtbert.fast.cuda.products import Products
from mtbert.model.bert import BertEncoder
from mtbert.model.dropout import Noise


class DeviceNoise(Noise):
    """Dropout by CUDA's own generator, seeded at each step: the device would wait for masks drawn on the host."""

    def reseed(self, seed: int, step: int, share: Share | None = None) -> None:
        if torch.cuda.is_available():
            # Of several processes each draws masks of its own: they depend on the number of processes.
            process = 0 if share is None else share.process
            words = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)
            torch.cuda.manual_seed(int(words[0] >> 1))

    def drop(
        self, x: Tensor, p: float, real: Tensor | None = None, drawn: int = 0, spans: Spans | None = None
    ) -> Tensor:
        return F.dropout(x, p)

    def __reduce__(self) -> tuple[type[Noise], tuple[()]]:
        return Noise, ()  # a copied model has no engine


def encode(encoder: BertEncoder, stream: TokenStream, first_only: bool, products: Products, passes: Passes) -> Tensor:
    """Last hidden states, as from `BertEncoder.forward`."""
    ragged = Ragged.of(stream)
    x_TD = passes.embed(encoder.embeddings, stream, ragged)
    states = States(x_TD, x_TD.to(products.dtype))
    for n, layer in enumerate(encoder.stack(), start=1):
        attention, feed_forward = layer.attention, layer.feed_forward
        qkv_TE, _ = products(states.narrow, attention.query, attention.key, attention.value)
        mixed_TD = passes.attention(qkv_TE, ragged, attention.heads, attention.dropout)
        residual_TD = states.wide
        if first_only and n == encoder.config.layers:
            residual_TD, mixed_TD = (one.index_select(0, stream.offsets[:-1]) for one in (residual_TD, mixed_TD))
        attended = products(mixed_TD, attention.output)
        states = passes.residual_norm(residual_TD, *attended, layer.attention_norm, layer.dropout)
        grown_TO = passes.gelu(*products(states.narrow, feed_forward.up))
        shrunk = products(grown_TO, feed_forward.down)
        states = passes.residual_norm(states.wide, *shrunk, layer.feed_forward_norm, layer.dropout)
    return states.wide
