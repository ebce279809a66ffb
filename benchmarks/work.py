"""The work that all cases of a benchmark share: rows of a prepared split, and mtbert's step over them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mtbert.data.arrays import Split, load_split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import pretrained
from mtbert.training.adamw import AdamW
from mtbert.training.compute import Compute
from mtbert.training.graphs import Steps
from mtbert.training.losses import paraphrase, sentiment, similarity_regression
from mtbert.training.step import Loss

LOSSES: dict[str, Loss] = {"sst": sentiment, "quora": paraphrase, "sts": similarity_regression}
PREPARED = Path("data/prepared")
# Rounds that do not count. The CPU's matrix library compiles a kernel for each number of rows when it first comes, which costs more than
# the product: a run of thousands of steps has met them all soon.
WARM_UP = 4


def split(task: str, prepared: Path = PREPARED) -> Split:
    """The training split, as `dvc repro prepare` leaves it."""
    if not prepared.is_dir():
        raise MtbertError(f"{prepared}: not found; run `dvc repro prepare` first, on the data to be measured with")
    return load_split(prepared, task, "train")


def batches(rows: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Shuffled batches of row numbers, pass after pass, without end; all cases draw the same ones."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def minilm(
    features: Sequence[str] | None = ("u", "v", "c"), dropout: float = 0.1, pooling: str = "mean"
) -> MultitaskModel:
    """MiniLM-L6 with a linear head over `features` for the pair tasks."""
    torch.manual_seed(0)
    found = pretrained("minilm")
    return multitask(found.config, features, dropout, lambda encoder: encoder.load_state_dict(found.tensors), pooling)


def multitask(
    config: BertConfig,
    features: Sequence[str] | None,
    dropout: float,
    fill: Callable[[BertEncoder], object],
    pooling: str = "mean",
) -> MultitaskModel:
    """A model of this size whose encoder `fill` gives its weights."""
    encoder = BertEncoder(config, dropout)
    fill(encoder)
    return MultitaskModel(encoder, pooling, quora=features, sts=features, dropout=dropout)


def wrapper(prepared: Path = PREPARED, max_tokens: int = 256) -> Wrapper:
    """[CLS] and [SEP] of the prepared tokenizer."""
    return wrapper_for(prepared / "tokenizer.json", max_tokens, BERT.special_tokens)


def training(
    model: MultitaskModel, data: Split, tokens: Wrapper, compute: Compute, batch_size: int, steps: int
) -> Callable[[], float]:
    """A case: `steps` of mtbert's own training step, from rows to updated weights; returns the real tokens."""
    taker = stepper(model, compute, batch_size, tokens)
    chosen, step = batches(len(data), batch_size, 0), 0

    def case() -> float:
        nonlocal step
        done = 0
        for _ in range(steps):
            step += 1
            batch = make_batch(data.task, data, next(chosen), model.views(data.task), tokens)
            taker.take(batch, 0, step)
            done += batch.stream.tokens
        wait(compute.device)
        return float(done)

    return case


def stepper(
    model: MultitaskModel, compute: Compute, batch_size: int, tokens: Wrapper, losses: Mapping[str, Loss] = LOSSES
) -> Steps:
    """What takes mtbert's training steps, with the training loop's optimizer."""
    model.to(compute.device).train()
    return Steps(model, AdamW(model, 1e-5), losses, compute, batch_size, tokens.max_tokens)


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
