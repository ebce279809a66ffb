"""BERT's head for masked tokens (Devlin et al. 2019). Shapes: M masked tokens, D hidden, V vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.bert import BertConfig, initialise


class MaskedTokenHead(nn.Module):
    """norm(GELU(W h + b)) E^T + c, where E is the encoder's token embedding, as in transformers' BertLMPredictionHead.

    Args:
        config: the encoder's size.
        seed: of the initial weights.
    """

    def __init__(self, config: BertConfig, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.dense = nn.Linear(config.hidden, config.hidden)
            initialise(self.dense)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, states_MD: Tensor, table_VD: Tensor) -> Tensor:
        """Scores of all wordpieces, (M, V)."""
        return F.linear(self.norm(F.gelu(self.dense(states_MD))), table_VD, self.bias)
