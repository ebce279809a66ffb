"""The minBERT encoder over a token stream (Devlin et al. 2019; the paper's section 4.1).

Shapes: T tokens, D hidden, H heads, K = D / H head width, L tokens in one sequence, n sequences of equal length.
Every linear layer and norm sees the T real tokens and nothing else; only attention looks at sequences.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import Block, TokenStream
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

    def forward(self, x_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
        q_TD, k_TD, v_TD = self.query(x_TD), self.key(x_TD), self.value(x_TD)
        # Products of a few tokens are faster in fp32 than in bf16 on a CPU, and softmax is more exact.
        with torch.autocast(x_TD.device.type, enabled=False):
            mixed_TD = self._attend(q_TD.float(), k_TD.float(), v_TD.float(), blocks)
        return self.output(mixed_TD)

    def _attend(self, q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
        sizes = [block.count * block.length for block in blocks]
        mixed = []
        # One batched product per length: no padding, no mask, and a neighbour cannot change a sequence's result.
        for block, q, k, v in zip(blocks, *(x_TD.split(sizes) for x_TD in (q_TD, k_TD, v_TD)), strict=True):
            q_nHLK, k_nHLK, v_nHLK = (x.view(*block, self.heads, -1).transpose(1, 2) for x in (q, k, v))
            scores_nHLL = q_nHLK @ k_nHLK.transpose(2, 3) * q_nHLK.shape[-1] ** -0.5
            weights_nHLL = self.dropout(scores_nHLL.softmax(-1))
            mixed.append((weights_nHLL @ v_nHLK).transpose(1, 2).reshape(len(q), -1))
        return torch.cat(mixed)


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

    def forward(self, x_TD: Tensor, blocks: tuple[Block, ...]) -> Tensor:
        x_TD = self.attention_norm(x_TD + self.dropout(self.attention(x_TD, blocks)))
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
        self.pooler = nn.Linear(config.hidden, config.hidden)

    def forward(self, stream: TokenStream) -> Tensor:
        """Last hidden states, (T, D), in stream order."""
        x_TD = self.embeddings(stream)
        for layer in self.layers:
            x_TD = layer(x_TD, stream.blocks)
        return x_TD


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: weights from N(0, 0.02), biases zero, norms one (for `encoder.source: random`)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
