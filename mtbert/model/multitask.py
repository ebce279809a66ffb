"""One encoder, a head for each task: the multitask model (section 4)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.data.batches import Batch
from mtbert.model.bert import BertEncoder
from mtbert.model.pooling import pool


class MultitaskModel(nn.Module):
    """Scores for a batch of any of its tasks.

    Args:
        encoder: the shared encoder; it loses its pooler where pooling is not cls, so that no unused weight counts as trainable.
        pooling: cls, mean or max; cls is followed by BERT's pooler, tanh(W h + b), as in the course's framework.
        heads: by task, as `mtbert.model.heads.build_heads` gives them; their dropout draws from the encoder's noise.
    """

    def __init__(self, encoder: BertEncoder, pooling: str, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if pooling != "cls":
            encoder.pooler = None
        self.encoder = encoder
        self.pooling = pooling
        self.heads = nn.ModuleDict()
        self.heads._modules.update(heads)  # add_module refuses tasks whose names are methods, such as `type`

    def forward(self, batch: Batch) -> Tensor:
        """The head's output for the batch's task: class logits (B, C), or a logit, score or cosine (B,). Float32."""
        if self.pooling == "cls":
            pooled_ND = self.encoder(batch.stream, first_only=True)
        else:
            pooled_ND = pool(self.pooling, self.encoder(batch.stream), batch.stream)
        # Similarities and logits need more than bf16's three digits; these products are small.
        with torch.autocast(pooled_ND.device.type, enabled=False):
            pooled_ND = pooled_ND.to(torch.promote_types(pooled_ND.dtype, torch.float32))
            if self.encoder.pooler is not None:
                pooled_ND = torch.tanh(self.encoder.pooler(pooled_ND))
            views = pooled_ND.index_select(0, batch.stream.rank).chunk(len(batch.views))
            return self.heads[batch.task](dict(zip(batch.views, views, strict=True))).float()

    def views(self, task: str) -> tuple[str, ...]:
        """The sequences that the task's head needs of each example."""
        views: tuple[str, ...] = self.heads[task].views  # type: ignore[assignment]
        return views

    def reseed(self, seed: int, step: int) -> None:
        """Make all that is random in a step (dropout) a function of (seed, step): resuming needs no generator state."""
        self.encoder.noise.reseed(seed, step)
        if next(self.parameters()).is_cuda:
            torch.cuda.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1))
