"""What the benchmarks' cases share: rows of a prepared split, and mtbert's training step on them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mtbert.data.arrays import Split, load_split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.engines import engine_for
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import pretrained
from mtbert.tasks.objective import (
    BinaryCrossEntropy,
    Cosine,
    CosineEmbedding,
    CrossEntropy,
    MeanSquaredError,
    Objective,
)
from mtbert.tasks.paper import QUORA, SST, STS, TASKS
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss

EngineOf = Callable[[MultitaskModel, Compute], Engine]

PREPARED = Path("data/prepared")
# Rounds that do not count. The CPU's matrix library compiles a kernel for each new number of rows, which costs more
# than the product; a run of thousands of steps pays for that only at its beginning.
WARM_UP = 4


def split(task: str, prepared: Path = PREPARED) -> Split:
    """The training split that `dvc repro prepare` wrote."""
    if not prepared.is_dir():
        raise MtbertError(f"{prepared}: not found; run `dvc repro prepare` first, on the data to measure with")
    return load_split(prepared, TASKS[task], "train")


def batches(rows: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless shuffled batches of row numbers, the same for all cases."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def minilm(features: Sequence[str] = ("u", "v", "c"), pooling: str = "mean") -> MultitaskModel:
    """MiniLM-L6 with a linear head over `features` for the pair tasks."""
    torch.manual_seed(0)
    found = pretrained("minilm")
    return multitask(found.config, features, 0.1, lambda encoder: encoder.load_state_dict(found.tensors), pooling)


def multitask(
    config: BertConfig,
    features: Sequence[str],
    dropout: float,
    fill: Callable[[BertEncoder], object],
    pooling: str = "mean",
) -> MultitaskModel:
    """A model of this size; `fill` sets the weights of its encoder."""
    encoder = BertEncoder(config, dropout)
    fill(encoder)
    heads = build_heads(objectives(features, features), TASKS, config.hidden, dropout, encoder.noise)
    return MultitaskModel(encoder, pooling, heads)


def objectives(quora: Sequence[str] | None, sts: Sequence[str] | None) -> dict[str, Objective]:
    """The paper's objectives: linear heads over these features for the pair tasks, or a cosine where they are None."""
    pairs: dict[str, Objective] = {
        QUORA.name: BinaryCrossEntropy.model_validate({"objective": "bce", "features": list(quora)})
        if quora
        else Cosine(objective="cosine"),
        STS.name: MeanSquaredError.model_validate({"objective": "mse", "features": list(sts), "clamp": True})
        if sts
        else CosineEmbedding(objective="cosine_embedding", margin=0.0, threshold=2.5),
    }
    return {SST.name: CrossEntropy(objective="cross_entropy", features=["u"]), **pairs}


LOSSES: dict[str, Loss] = {name: one.loss() for name, one in objectives(("u", "v"), ("u", "v")).items()}


def wrapper(prepared: Path = PREPARED, max_tokens: int = 256) -> Wrapper:
    """The wrapper with the prepared tokenizer's [CLS] and [SEP]."""
    return wrapper_for(prepared / "tokenizer.json", max_tokens, BERT.special_tokens)


def training(
    model: MultitaskModel,
    data: Split,
    tokens: Wrapper,
    compute: Compute,
    batch_size: int,
    steps: int,
    engine_of: EngineOf = engine_for,
) -> Callable[[], float]:
    """A case: `steps` of mtbert's own training step, from rows to updated weights; returns the real tokens."""
    engine = stepper(model, compute, batch_size, engine_of)
    chosen, step = batches(len(data), batch_size, 0), 0

    def case() -> float:
        nonlocal step
        done = 0
        for _ in range(steps):
            step += 1
            batch = make_batch(data.task, data, next(chosen), model.views(data.task), tokens)
            engine.step(batch, LOSSES[data.task], 0, step)
            done += batch.stream.tokens
        wait(compute.device)
        return float(done)

    return case


def stepper(model: MultitaskModel, compute: Compute, batch_size: int, engine_of: EngineOf = engine_for) -> Engine:
    """An engine for the model, with the training loop's optimizer."""
    model.to(compute.device).train()
    engine = engine_of(model, compute)
    engine.optimizer(Recipe("sequential", "depletion", 1, batch_size, 1e-5))
    return engine


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
