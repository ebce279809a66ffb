"""The minBERT encoder over a token stream (Devlin et al. 2019; the paper's section 4.1).

Shapes: T tokens, D hidden. Every linear layer and norm sees the T real tokens and nothing else; only
attention looks at sequences.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.model.attention import (
    GroupedAttention,
    Layout,
    Packed,
    PackedAttention,
    Ragged,
    layout_for,
    ragged_attention,
)
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.embedding import TokenEmbedding
from mtbert.model.fused import Product, States, fits, gelu, product, residual_norm, side_by_side, states


@dataclass(frozen=True)
class BertConfig:
    """Size of an encoder; the defaults are BERT-base's.

    Attributes:
        vocabulary, positions, segments: rows of the three embedding tables.
        layers, hidden, heads, intermediate: transformer layers, D, H, and the feed-forward width.
        norm_eps: added to the variance in LayerNorm.
    """

    vocabulary: int = 30522
    positions: int = 512
    segments: int = 2
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    norm_eps: float = 1e-12


class Embeddings(nn.Module):
    """LayerNorm(token + position + segment), then dropout."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.token = TokenEmbedding(config.vocabulary, config.hidden)
        self.position = nn.Embedding(config.positions, config.hidden)
        self.segment = nn.Embedding(config.segments, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = Dropout(dropout, noise)

    def forward(self, stream: TokenStream) -> Tensor:
        x_TD = self.token(stream.ids) + self.segment(stream.segments) + self.position(stream.positions)
        return self.dropout(self.norm(x_TD))


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(K)) v within each sequence, H heads, then the output projection."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.output = nn.Linear(config.hidden, config.hidden)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x: States, layout: Layout | Ragged | Packed, rows: Tensor | None = None) -> Product:
        """The product of the output projection; for `rows` only, if they are given."""
        qkv = side_by_side((self.query, self.key, self.value), x.narrow, x.fused)
        if isinstance(layout, Packed):
            mixed_TD = PackedAttention.apply(*qkv, layout, self.heads, self.dropout.mask(layout.weights))
        elif isinstance(layout, Ragged):
            mixed_TD = ragged_attention(qkv.z, layout, self.heads, self.dropout.p * self.training)
        else:
            keep = self.dropout.factors(layout.weights, qkv.z)
            with torch.autocast(qkv.z.device.type, enabled=False):
                mixed_TD = GroupedAttention.apply(qkv.z, layout, self.heads, keep)
        return product(self.output, mixed_TD if rows is None else mixed_TD.index_select(0, rows), x.fused)


class FeedForward(nn.Module):
    """down(gelu(up(x))), with the exact (erf) GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden, config.intermediate)
        self.down = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x: States) -> Product:
        return product(self.down, gelu(product(self.up, x.narrow, x.fused), x.fused), x.fused)


class Layer(nn.Module):
    """x = norm(x + dropout(attention(x))); x = norm(x + dropout(feed_forward(x)))."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.attention = SelfAttention(config, dropout, noise)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x: States, layout: Layout | Ragged | Packed, rows: Tensor | None = None) -> States:
        """The layer's states; of the tokens in `rows` only, if they are given: past the attention nobody else matters to them."""
        attended = self.attention(x, layout, rows)
        x = residual_norm(x if rows is None else x.of(rows), attended, self.attention_norm, self.dropout)
        return residual_norm(x, self.feed_forward(x), self.feed_forward_norm, self.dropout)


class BertEncoder(nn.Module):
    """From a token stream to the last hidden states.

    Args:
        config: the encoder's size.
        dropout: after the embeddings, on attention weights and before each residual sum.
    """

    def __init__(self, config: BertConfig, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = config
        self.noise = Noise()
        self.embeddings = Embeddings(config, dropout, self.noise)
        self.layers = nn.ModuleList(Layer(config, dropout, self.noise) for _ in range(config.layers))
        # [CLS] passes through this dense layer when pooling is cls; it was trained with next-sentence prediction.
        # MultitaskModel takes it out of an encoder whose states are pooled otherwise.
        self.pooler: nn.Linear | None = nn.Linear(config.hidden, config.hidden)

    def forward(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        """Last hidden states, (T, D), in stream order.

        Args:
            first_only: those of each sequence's first token, (N, D), which spares most of the last layer.
        """
        x_TD, size = self.embeddings(stream), self.config
        fused = stream.ragged is None and fits(x_TD, size.hidden, size.heads, size.intermediate)
        layout = stream.ragged or layout_for(stream.blocks, stream.tokens, size.heads, x_TD, fused)
        x = states(x_TD, fused)
        for layer in self.layers[:-1]:
            x = layer(x, layout)
        last: States = self.layers[-1](x, layout, stream.starts() if first_only else None)
        return last.wide


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: weights from N(0, 0.02), biases zero, norms one (for `encoder.source: random`)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
