"""A tiny model and tiny splits, random but the same for the same arguments."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.work import objectives
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_adapter
from mtbert.peft.registry import ADAPTERS, Selection
from mtbert.tasks.paper import TASKS

# Of a size that our kernels take, in fp32.
TINY = BertConfig(vocabulary=40, positions=64, layers=2, hidden=32, heads=2, intermediate=48)
# So is this; fp32's rounding grows with the width, and some limits are near it.
NARROW = replace(TINY, hidden=16, heads=1, intermediate=32)
WRAPPER = Wrapper(cls=1, sep=2, max_tokens=48)  # wordpieces start at 3


def multitask(
    encoder: BertEncoder, pooling: str, quora: Sequence[str] | None, sts: Sequence[str] | None, dropout: float = 0.3
) -> MultitaskModel:
    """The paper's model over this encoder, with heads for `objectives(quora, sts)`."""
    heads = build_heads(objectives(quora, sts), TASKS, encoder.config.hidden, dropout, encoder.noise)
    return MultitaskModel(encoder, pooling, heads)


def tiny_model(
    pooling: str = "mean",
    quora: Sequence[str] | None = ("u", "v", "c"),
    sts: Sequence[str] | None = ("u", "v", "c"),
    *,
    config: BertConfig = TINY,
    seed: int = 0,
    dropout: float = 0.1,
    head_dropout: float = 0.1,
) -> MultitaskModel:
    """An untrained model; every parameter is away from its default, so that one that is ignored shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = multitask(BertEncoder(config, dropout), pooling, quora, sts, head_dropout)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def adapt(
    model: MultitaskModel, method: str, *, seed: int = 3, dropout: float = 0.0, **settings: Any
) -> MultitaskModel:
    """Add an adapter to the model, in place; settings that are not given have a small value, and the rest of the encoder trains.

    Args:
        dropout: of methods that have it.
    """
    kind = ADAPTERS[method]
    small = {
        "rank": 2,
        "alpha": 4.0,
        "dropout": dropout,
        "block_size": 4,
        "norm_gradient": "exact",
        "size": 4,
        "task_rank": 3,
    }
    shared = {
        "method": method,
        "learning_rate": 1e-3,
        "start_from": "pretrained",
        "train_rest": not issubclass(kind, Selection),
    }
    fitting = {key: value for key, value in small.items() if key in kind.model_fields}
    add_adapter(model, kind.model_validate(shared | fitting | settings), seed)
    return model


def tiny_split(task: str, rows: int, seed: int = 0, *, longest: int = 12, labelled: bool = True) -> Split:
    """Random wordpieces, 1 to `longest` per sentence; the first wordpiece tells the label."""
    rng = np.random.default_rng([seed, rows, ("sst", "quora", "sts").index(task)])

    def sentences() -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate(([0], np.cumsum(rng.integers(1, longest + 1, rows)))).astype(np.int64)
        return rng.integers(3, TINY.vocabulary, offsets[-1]).astype(np.uint16), offsets

    ids1, offsets1 = sentences()
    ids2, offsets2 = sentences() if task != "sst" else (None, None)
    first = ids1[offsets1[:-1]].astype(np.int64)
    labels = {"sst": first % 5, "quora": first % 2, "sts": first % 26 / 5}[task].astype(np.float32)
    return Split(task, "train", Path(), ids1, offsets1, ids2, offsets2, labels if labelled else None)
