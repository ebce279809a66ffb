"""What the encoder computes beside products: embeddings; attention; bias, dropout, residual sum and LayerNorm; bias and GELU; sums over
rows. Here by torch's operations; `fused.py` does the same in fewer launches. Shapes: T tokens, D hidden, O outputs of a layer.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda.merged import Merge
from mtbert.model.bert import Embeddings
from mtbert.model.dropout import Dropout


class Ragged(NamedTuple):
    """A token stream's sequences, as kernels read them.

    Attributes:
        offsets: the first token of each sequence (filler included), then T, int32.
        longest: tokens of the longest sequence, or more.
    """

    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, stream: TokenStream) -> "Ragged":
        return cls(stream.offsets.int(), stream.longest)


class States(NamedTuple):
    """Hidden states (T, D) in two types.

    Attributes:
        wide: in fp32, for residual sums.
        narrow: in the type of products, for the next layer.
    """

    wide: Tensor
    narrow: Tensor


class Passes:
    """The passes of one forward through the encoder.

    Attributes:
        adds_bias: whether a pass adds a bias at no cost, so that products need not.
        compiler: what compiled the passes' kernels; empty if they are torch's own.
        merge: forms the weights of LoRA and DoRA layers.
    """

    adds_bias = False
    compiler = ""
    merge: type[Merge] = Merge

    @staticmethod
    def sums(matrix: Tensor, dtype: torch.dtype) -> Tensor:
        """The sums over rows, (O,) of (T, O)."""
        return matrix.sum(0, dtype=dtype)

    def embed(self, embeddings: Embeddings, stream: TokenStream, ragged: Ragged) -> Tensor:
        """The encoder's input, (T, D)."""
        x_TD: Tensor = embeddings(stream)
        return x_TD

    def attention(self, qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: Dropout) -> Tensor:
        """dropout(softmax(q k^T / sqrt(K))) v within each sequence, (T, D); q, k and v are side by side, E = 3 D, in bf16."""
        return flash_attention(qkv_TE, ragged, heads, dropout.p if dropout.training else 0.0)

    def residual_norm(
        self, x_TD: Tensor, y_TD: Tensor, bias: Tensor | None, norm: nn.LayerNorm, dropout: Dropout
    ) -> States:
        """norm(x + dropout(y + bias))."""
        wide = norm(x_TD + dropout(y_TD if bias is None else y_TD + bias))
        return States(wide, wide.to(y_TD.dtype))

    def gelu(self, y_TO: Tensor, bias: Tensor | None) -> Tensor:
        """The exact (erf) GELU of y + bias, in y's type."""
        return F.gelu(y_TO if bias is None else y_TO + bias).to(y_TO.dtype)


def flash_attention(qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: float) -> Tensor:
    """As `Passes.attention`, by torch's kernel for long texts.

    `torch.nn.attention.varlen` calls the same kernel, but without dropout.
    """
    q, k, v = qkv_TE.view(len(qkv_TE), 3, heads, -1).unbind(1)
    offsets, longest = ragged
    mixed: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, offsets, offsets, longest, longest, dropout, False, False
    )[0]
    return mixed.flatten(1)
