"""The minBERT encoder over a token stream (Devlin et al. 2019; the paper's section 4.1).

Shapes: T tokens, D hidden. Every linear layer and norm sees the T real tokens and nothing else; only
attention looks at sequences.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.model.attention import GroupedAttention, Layout, Ragged, layout_for, ragged_attention
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.embedding import TokenEmbedding


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

    def forward(self, x_TD: Tensor, layout: Layout | Ragged) -> Tensor:
        qkv_TE = side_by_side(x_TD, self.query, self.key, self.value)
        if isinstance(layout, Ragged):
            return self.output(ragged_attention(qkv_TE, layout, self.heads, self.dropout.p * self.training))
        keep = self.dropout.factors(layout.weights, x_TD)
        with torch.autocast(x_TD.device.type, enabled=False):
            mixed_TD = GroupedAttention.apply(qkv_TE, layout, self.heads, keep)
        return self.output(mixed_TD)


def side_by_side(x_TD: Tensor, *layers: Any) -> Tensor:
    """What layers of one kind make of x, next to each other, (T, E), in one product if they know how."""
    if type(layers[0]) is nn.Linear:
        return F.linear(
            x_TD, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        )
    if hasattr(layers[0], "side_by_side"):
        joined: Tensor = layers[0].side_by_side(layers, x_TD)
        return joined
    return torch.cat([layer(x_TD) for layer in layers], dim=-1)


class FeedForward(nn.Module):
    """down(gelu(up(x))), with the exact (erf) GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden, config.intermediate)
        self.down = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_TD)))


class Layer(nn.Module):
    """x = norm(x + dropout(attention(x))); x = norm(x + dropout(feed_forward(x)))."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.attention = SelfAttention(config, dropout, noise)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x_TD: Tensor, layout: Layout | Ragged) -> Tensor:
        x_TD = self.attention_norm(self.dropout.add(x_TD, self.attention(x_TD, layout)))
        return self.feed_forward_norm(self.dropout.add(x_TD, self.feed_forward(x_TD)))


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
        self.pooler = nn.Linear(config.hidden, config.hidden)

    def forward(self, stream: TokenStream) -> Tensor:
        """Last hidden states, (T, D), in stream order."""
        x_TD = self.embeddings(stream)
        layout = stream.ragged or layout_for(stream.blocks, stream.tokens, self.config.heads, x_TD)
        for layer in self.layers:
            x_TD = layer(x_TD, layout)
        return x_TD


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: weights from N(0, 0.02), biases zero, norms one (for `encoder.source: random`)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
