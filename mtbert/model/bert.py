"""The minBERT encoder over a token stream (Devlin et al. 2019; the paper's section 4.1).

Shapes: T tokens of the stream, N sequences of at most L tokens, D hidden size, H heads, K = D / H head width. The letters
that end a name are its shape: x_TD is (T, D). Linear layers and norms run on the stream, without padding; only attention
pads the sequences.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.model.dropout import Dropout, Noise


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


class Padding(NamedTuple):
    """A token stream's sequences, padded to the longest. Filler is left out, since padding would multiply its cost.

    Attributes:
        rows: the row of the stream that each position reads, (N, L).
        real: False where a position is padding, (N, L).
        weights: number of attention weights of one head, those of filler included.
    """

    rows: Tensor
    real: Tensor
    weights: int

    @classmethod
    def of(cls, stream: TokenStream) -> "Padding":
        offsets = stream.offsets[: len(stream.rank) + 1]
        rows = offsets[:-1, None] + torch.arange(stream.longest, device=offsets.device)
        weights = int(stream.offsets.diff().square().sum())
        return cls(rows.clamp_max(len(stream.ids) - 1), rows < offsets[1:, None], weights)


class Embeddings(nn.Module):
    """dropout(LayerNorm(token + position + segment)), (T, D)."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocabulary, config.hidden)
        self.position = nn.Embedding(config.positions, config.hidden)
        self.segment = nn.Embedding(config.segments, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = Dropout(dropout, noise)

    def forward(self, stream: TokenStream) -> Tensor:
        x_TD = self.token(stream.ids) + self.segment(stream.segments) + self.position(stream.positions)
        return self.dropout(self.norm(x_TD))


class SelfAttention(nn.Module):
    """Multi-head self-attention within each sequence (Vaswani et al. 2017, section 3.2).

    For each head q = x W_q + b_q, likewise k and v, each (L, K), and softmax(q k^T / sqrt(K)) v, with dropout on the
    softmax. The H results side by side, (L, D), pass through the output layer.
    """

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.output = nn.Linear(config.hidden, config.hidden)
        self.dropout = Dropout(dropout, noise, "weights")

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """(T, D) to (T, D), or to (len(rows), D) if only the tokens in `rows` are wanted."""
        qkv_TE = torch.cat([linear(x_TD) for linear in (self.query, self.key, self.value)], dim=-1)
        with torch.autocast(x_TD.device.type, enabled=False):  # scores need more digits than bf16 has
            exact = torch.promote_types(qkv_TE.dtype, torch.float32)
            qkv_NLE = qkv_TE.to(exact)[padding.rows]
            q_NHLK, k_NHLK, v_NHLK = qkv_NLE.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            real = padding.real[:, None, None, :]
            scores_NHLL = q_NHLK @ k_NHLK.mT / q_NHLK.shape[-1] ** 0.5
            weights_NHLL = scores_NHLL.masked_fill(~real, -torch.inf).softmax(-1)
            drawn = self.heads * padding.weights  # the masks of a step do not depend on how an engine treats filler
            weights_NHLL = self.dropout(weights_NHLL, real & padding.real[:, None, :, None], drawn)
            mixed_NLD = (weights_NHLL @ v_NHLK).transpose(1, 2).flatten(2)
        # Back to the stream: its sequences are in the same order, and then comes filler, on which nothing depends.
        mixed_TD = mixed_NLD[padding.real].to(qkv_TE.dtype)
        mixed_TD = F.pad(mixed_TD, (0, 0, 0, len(x_TD) - len(mixed_TD)))
        return self.output(mixed_TD if rows is None else mixed_TD[rows])


class FeedForward(nn.Module):
    """down(GELU(up(x))), (T, D) to (T, D), with GELU(y) = y (1 + erf(y / sqrt(2))) / 2 (Hendrycks and Gimpel 2016)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden, config.intermediate)
        self.down = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_TD)))


class Layer(nn.Module):
    """A transformer layer: h = norm(x + dropout(attention(x))), then norm(h + dropout(feed_forward(h)))."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.attention = SelfAttention(config, dropout, noise)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """(T, D) to (T, D), or to (len(rows), D): after attention, only the tokens in `rows` are computed."""
        attended = self.attention(x_TD, padding, rows)
        x_TD = self.attention_norm((x_TD if rows is None else x_TD[rows]) + self.dropout(attended))
        return self.feed_forward_norm(x_TD + self.dropout(self.feed_forward(x_TD)))


class BertEncoder(nn.Module):
    """BERT: embeddings and a stack of transformer layers, from a token stream to the last hidden states.

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
        # cls pooling passes [CLS] through this layer, which was pretrained with next-sentence prediction.
        # MultitaskModel removes it for any other pooling.
        self.pooler: nn.Linear | None = nn.Linear(config.hidden, config.hidden)

    def forward(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        """Last hidden states in stream order, (T, D), or with `first_only` each sequence's first one, filler's too."""
        x_TD, padding = self.embeddings(stream), Padding.of(stream)
        *layers, last = self.stack()
        for layer in layers:
            x_TD = layer(x_TD, padding)
        states: Tensor = last(x_TD, padding, stream.offsets[:-1] if first_only else None)
        return states

    def stack(self) -> list[Layer]:
        """The layers, typed."""
        return list(self.layers)  # type: ignore[arg-type]


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: weights from N(0, 0.02), biases zero, norms one (for `encoder.source: random`)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
