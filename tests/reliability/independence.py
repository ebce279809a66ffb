"""Figure 12: an example's prediction does not depend on its batch or its position in it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.work import objectives
from mtbert.data import batches
from mtbert.data.tokens import TokenStream, lay_out
from mtbert.engines import engine_for, kernels
from mtbert.evaluation.predict import raw_scores
from mtbert.fast.cpu.attention import Packed
from mtbert.model.bert import Padding
from mtbert.model.multitask import MultitaskModel
from mtbert.model.pooling import POOLINGS, mean
from mtbert.tasks import paper
from mtbert.training.compute import Compute
from tests.reliability.trial import Tally
from tests.tiny import WRAPPER, tiny_model, tiny_split

# By precision; in fp32 both for the fast engine and for plain torch.
LIMITS = {"fp64": 1e-12, "fp32": 5e-6, "fp32 by torch": 5e-6}
TASKS = ("sst", "quora", "sts")
OBJECTIVES = objectives(("u", "v"), ("u", "v"))
ROWS = 40


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Random batches around random examples, in both precisions, for each task and pooling."""
    tally = Tally(12, "predictions and their neighbours", "fp64 ≤ 1e-12, fp32 ≤ 5e-6, labels unchanged", seed)
    largest = dict.fromkeys(LIMITS, 0.0)
    for way, what, difference, labels in _compared(10 if quick else 150, seed):
        largest[way] = max(largest[way], difference)
        tally.trial(difference <= LIMITS[way] and labels, f"{what}: {difference:.2g}, labels equal: {labels}")
    for bug, change in PLANTED:
        with change:
            outcomes = [difference <= LIMITS[way] for way, _, difference, _ in _compared(4, seed)]
        tally.control(not all(outcomes), bug)
    differences = ", ".join(f"{way} {difference:.1g}" for way, difference in largest.items())
    tally.note = f"largest difference: {differences}{'' if kernels()[0] else f'; {kernels()[1]}'}"
    return [tally]


def _compared(times: int, seed: int) -> Iterator[tuple[str, str, float, bool]]:
    """Compare examples alone and in batches: (one of LIMITS, description, largest difference of scores, whether labels agree)."""
    for way in LIMITS:
        dtype = torch.float64 if way == "fp64" else torch.float32
        for what, difference, labels in _in_batches(times, seed, dtype, fast=way == "fp32"):
            yield way, f"{what}, {way}", difference, labels


def _in_batches(times: int, seed: int, dtype: torch.dtype, fast: bool) -> Iterator[tuple[str, float, bool]]:
    rng = np.random.default_rng(seed)
    for pooling in POOLINGS:
        model = tiny_model(pooling).to(dtype).eval()
        if fast:
            engine_for(model, Compute(torch.device("cpu"), bf16=False))
        for task in TASKS:
            split = tiny_split(task, ROWS, seed)
            alone = torch.cat([_scores(model, task, split, np.array([row])) for row in range(ROWS)])
            for _ in range(times):
                rows = rng.permutation(ROWS)[: rng.integers(2, ROWS + 1)]
                together = _scores(model, task, split, rows)
                difference = float((together - alone[rows]).abs().max())
                labels = np.array_equal(_labels(task, together), _labels(task, alone[rows]))
                yield f"{task}, {pooling}, {len(rows)} rows", difference, labels
            if dtype is torch.float32:
                size = int(rng.integers(1, ROWS))
                whole = torch.from_numpy(raw_scores(model, task, split, WRAPPER, batch_size=size))
                labels = np.array_equal(_labels(task, whole), _labels(task, alone))
                yield f"{task}, {pooling}, whole split by {size}", float((whole - alone).abs().max()), labels


def _scores(model: MultitaskModel, task: str, split: Any, rows: np.ndarray) -> Tensor:
    """The head's output before it is rounded to fp32."""
    kept: list[Tensor] = []
    hook = model.heads[task].register_forward_hook(lambda _module, _input, output: kept.append(output))
    with torch.no_grad():
        model(batches.make_batch(task, split, rows, model.views(task), WRAPPER))
    hook.remove()
    return kept[0]


def _labels(task: str, scores: Tensor) -> np.ndarray:
    """Predicted labels; none for similarities, whose scores are compared only."""
    return np.empty(0) if task == "sts" else OBJECTIVES[task].decide(scores.float().numpy(), paper.TASKS[task]).values


def _joined(stream: TokenStream) -> TokenStream:
    """The stream as one single sequence."""
    return replace(stream, offsets=stream.offsets[[0, -1]], longest=stream.tokens)


def _counted_on(sequences: Any, multiple: int = 1) -> TokenStream:
    stream = lay_out(sequences, multiple)
    return replace(stream, positions=torch.arange(len(stream.ids)) % 50)


def _out_of_order(sequences: Any, multiple: int = 1) -> TokenStream:
    stream = lay_out(sequences, multiple)
    return replace(stream, rank=torch.arange(len(stream.rank)))


def _centred(hidden: Tensor, offsets: Tensor) -> Tensor:
    return mean(hidden, offsets) - 1e-4 * hidden.mean(0)


PADDING, PACKED = Padding.of, Packed.of
PLANTED: list[tuple[str, Any]] = [
    ("attention over neighbours", patch.object(Padding, "of", lambda stream: PADDING(_joined(stream)))),
    *(
        [
            (
                "a kernel's attention over neighbours",
                patch.object(Packed, "of", lambda stream, heads: PACKED(_joined(stream), heads)),
            )
        ]
        * kernels()[0]
    ),
    ("attention to padding", patch.object(Tensor, "masked_fill", lambda scores, *_: scores)),
    ("positions counted through the batch", patch.object(batches, "lay_out", _counted_on)),
    ("rows returned in stream order", patch.object(batches, "lay_out", _out_of_order)),
    ("pooling minus a ten-thousandth of the batch's mean", patch.dict(POOLINGS, {"mean": _centred})),
    ("dropout left on", patch.object(MultitaskModel, "eval", MultitaskModel.train)),
]
