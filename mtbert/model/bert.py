"""The minBERT encoder over a token stream (Devlin et al. 2019; the paper's section 4.1).

Shapes: T rows of the stream, N sequences (filler's included) of at most L tokens, D hidden, H heads, K = D / H head width. Every linear layer and norm
sees the stream without padding; only attention looks at sequences, and pads them.
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
    """Where attention finds its sequences: the stream's row of each token, (N, L), and which of these are no padding, (N, L)."""

    rows: Tensor
    real: Tensor

    @classmethod
    def of(cls, stream: TokenStream) -> "Padding":
        starts, ends = stream.offsets[:-1, None], stream.offsets[1:, None]
        rows = starts + torch.arange(stream.longest, device=starts.device)
        return cls(rows.clamp_max(len(stream.ids) - 1), rows < ends)


class Embeddings(nn.Module):
    """LayerNorm(token + position + segment), then dropout."""

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
    """softmax(q k^T / sqrt(K)) v within each sequence, H heads, then the output projection."""

    def __init__(self, config: BertConfig, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.output = nn.Linear(config.hidden, config.hidden)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """(T, D); of the tokens in `rows` only, if they are given."""
        qkv_TE = torch.cat([linear(x_TD) for linear in (self.query, self.key, self.value)], dim=-1)
        with torch.autocast(x_TD.device.type, enabled=False):  # bf16 has too few digits for scores
            exact = torch.promote_types(qkv_TE.dtype, torch.float32)
            qkv_NLE = qkv_TE.to(exact)[padding.rows]
            q_NHLK, k_NHLK, v_NHLK = qkv_NLE.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            real = padding.real[:, None, None, :]
            scores_NHLL = q_NHLK @ k_NHLK.mT / q_NHLK.shape[-1] ** 0.5
            weights_NHLL = scores_NHLL.masked_fill(~real, -torch.inf).softmax(-1)
            weights_NHLL = self.dropout(weights_NHLL, real & padding.real[:, None, :, None])
            mixed_NLD = (weights_NHLL @ v_NHLK).transpose(1, 2).flatten(2)
        mixed_TD = mixed_NLD[padding.real].to(qkv_TE.dtype)  # the sequences lie in the stream's order
        return self.output(mixed_TD if rows is None else mixed_TD[rows])


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

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """(T, D); of the tokens in `rows` only, if they are given: past the attention a token needs no other."""
        attended = self.attention(x_TD, padding, rows)
        x_TD = self.attention_norm((x_TD if rows is None else x_TD[rows]) + self.dropout(attended))
        return self.feed_forward_norm(x_TD + self.dropout(self.feed_forward(x_TD)))


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
        """Last hidden states, (T, D), in stream order; with `first_only` those of each sequence's first token, filler's included."""
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
