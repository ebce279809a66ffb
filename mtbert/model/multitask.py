"""One encoder, a head for each task: the multitask model (section 4)."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtbert.data.batches import Batch
from mtbert.data.shares import Share
from mtbert.data.tokens import TokenStream
from mtbert.model.active import computing
from mtbert.model.bert import BertEncoder
from mtbert.model.heads import HeadOverPairLayer, PairLayer
from mtbert.model.pooling import pool


class Encoding(Protocol):
    """The part of an engine (mtbert/training/engine.py) that the model calls."""

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor: ...

    def release(self) -> None: ...


class MultitaskModel(nn.Module):
    """Scores for a batch of any of its tasks.

    Args:
        encoder: the shared encoder; its pooler is removed if pooling is not cls, so that no unused weight counts as
            trainable.
        pooling: cls, mean or max; cls is followed by BERT's pooler, tanh(W h + b), as in the course's framework.
        heads: by task, from `mtbert.model.heads.build_heads`; their dropout uses the encoder's noise.
        pair_layer: the layer below the heads of pairs; None if they have none.

    Attributes:
        adapter_rates: the factor of the adapter's learning rate for each of its own parameters, by name; None without an adapter.
        uncertainty: parameters of the losses that train with the model and are removed after it; they are in checkpoints.
    """

    def __init__(
        self,
        encoder: BertEncoder,
        pooling: str,
        heads: Mapping[str, nn.Module],
        pair_layer: PairLayer | None = None,
    ) -> None:
        super().__init__()
        if pooling != "cls":
            encoder.pooler = None
        self.encoder = encoder
        self.pooling = pooling
        self.engine: Encoding | None = None  # not a submodule, so it is in no state dict
        self.adapter_rates: dict[str, float] | None = None
        self.heads = nn.ModuleDict()
        self.heads._modules.update(heads)  # add_module rejects tasks named like a method, such as `type`
        self.pair_layer = pair_layer
        self.uncertainty: nn.Module | None = None

    def forward(self, batch: Batch) -> Tensor:
        """The head's output for the batch's task: class logits (B, C), or a logit, score or cosine (B,). Float32."""
        pooled_ND = self.pooled(batch.stream, batch.task)
        # Logits and similarities need more than the three digits of bf16, and these products are cheap.
        with torch.autocast(pooled_ND.device.type, enabled=False):
            views = pooled_ND.chunk(len(batch.views))
            pooled, head = dict(zip(batch.views, views, strict=True)), self.heads[batch.task]
            if self.pair_layer is not None and isinstance(head, HeadOverPairLayer):
                return head(self.pair_layer(pooled)).float()
            return head(pooled).float()

    def pooled(self, stream: TokenStream, task: str | None = None) -> Tensor:
        """Each sequence as one vector, in the caller's order, (N, D). Float32 or wider.

        Args:
            task: of the sequences; it matters if the encoder has parts for each task.
        """
        with computing(task):
            encode = self.encoder if self.engine is None else self.engine.encode
            if self.pooling == "cls":
                pooled_ND = encode(stream, first_only=True)
            else:
                pooled_ND = pool(self.pooling, encode(stream), stream)
            with torch.autocast(pooled_ND.device.type, enabled=False):
                pooled_ND = pooled_ND.to(torch.promote_types(pooled_ND.dtype, torch.float32))
                if self.encoder.pooler is not None:
                    pooled_ND = torch.tanh(self.encoder.pooler(pooled_ND))
                return pooled_ND.index_select(0, stream.rank)

    def views(self, task: str) -> tuple[str, ...]:
        """The sequences that the task's head needs of each example."""
        views: tuple[str, ...] = self.heads[task].views  # type: ignore[assignment]
        return views

    def reseed(self, seed: int, step: int, share: Share | None = None) -> None:
        """Make a step's dropout a function of (seed, step), so that a checkpoint needs no generator state.

        Args:
            share: of the step's batch, if several processes train on it.
        """
        self.encoder.noise.reseed(seed, step, share)

    def release(self) -> None:
        """Detach the engine; the modules then compute as plain torch."""
        if self.engine is not None:
            self.engine.release()
        self.engine = None

    def _apply(self, *args: Any, **kwargs: Any) -> "MultitaskModel":
        """Move the model to another device or type, and detach the engine, which is made for one."""
        self.release()
        moved: MultitaskModel = super()._apply(*args, **kwargs)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "engine": None}  # the engine holds the original's weights
