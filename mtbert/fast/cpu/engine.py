"""The engine for a CPU with compiled kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtbert.data.tokens import TokenStream
from mtbert.fast.cpu import build
from mtbert.fast.cpu.adamw import AdamW
from mtbert.fast.cpu.attention import HEAD_WIDTHS
from mtbert.fast.cpu.call import LANES
from mtbert.fast.cpu.embedding import TableGradient
from mtbert.fast.cpu.encoder import encode
from mtbert.fast.cpu.products import Products
from mtbert.model.bert import BertConfig
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.pal import PalLayer
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain, parameter_groups
from mtbert.training.recipe import Recipe


def unfit(model: MultitaskModel) -> str:
    """Why the kernels can't take this model; empty if they can."""
    config: BertConfig = model.encoder.config
    if config.hidden // config.heads not in HEAD_WIDTHS or config.intermediate % LANES:
        return "the kernels take heads of width 16, 32 or 64 and a feed-forward width that is a multiple of 16"
    pals = [part for layer in model.encoder.stack() if isinstance(layer, PalLayer) for part in layer.attentions()]
    if any(pal.query.out_features // pal.heads > HEAD_WIDTHS[-1] for pal in pals):
        return f"the kernels take heads of PALs of width {HEAD_WIDTHS[-1]} or less"
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return "the kernels take float32 weights"
    return build.unavailable()


class CpuEngine(Plain):
    """Fused passes, attention without padding, cached bf16 copies of the weights, and an optimizer that updates them."""

    def __init__(self, model: MultitaskModel, compute: Compute) -> None:
        super().__init__(model, compute)
        self._products = Products()
        self._table = TableGradient(model.encoder.embeddings.token.weight)

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return super().encode(stream, first_only)
        return encode(self.model.encoder, stream, first_only, self._products, self._table)

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        self._optimizer = AdamW(parameter_groups(self.model, recipe), self._products.copies, self._table)
        self._follow(recipe)
        return self._optimizer

    @contextmanager
    def inference(self) -> Iterator[None]:
        with super().inference(), self._products.copies.unchanged():
            yield

    def describe(self) -> dict[str, Any]:
        return {"kernels": build.compiler()}
