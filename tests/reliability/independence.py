"""Figure 12: an example's prediction does not depend on its batch, its place in it or its neighbours."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mtbert.kernels import build
from mtbert.model.attention import Layout, Packed, lay_out_groups, lay_out_packed
from torch import Tensor

from mtbert.data import batches
from mtbert.data.tokens import TokenStream, lay_out
from mtbert.evaluation.predict import raw_scores
from mtbert.model import attention
from mtbert.model.multitask import MultitaskModel
from mtbert.model.pooling import POOLINGS, mean
from mtbert.tasks import paper
from tests.reliability.trial import Tally, Trial
from tests.tiny import WRAPPER, objectives, tiny_model, tiny_split

# By precision, and in fp32 with our kernels and without.
LIMITS = {"fp64": 1e-12, "fp32": 5e-6, "fp32 by torch": 5e-6}
TASKS = ("sst", "quora", "sts")
OBJECTIVES = objectives(("u", "v"), ("u", "v"))
ROWS = 40


def run(quick: bool, seed: int, folder: Path) -> list[Trial]:
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
    told = ", ".join(f"{way} {difference:.1g}" for way, difference in largest.items())
    return [tally.done(f"largest difference: {told}{'' if build.available() else f'; {build.unavailable()}'}")]


def _compared(times: int, seed: int) -> Iterator[tuple[str, str, float, bool]]:
    """(one of LIMITS, what, largest difference of the scores, whether labels agree) of examples alone and among others."""
    for way in LIMITS:
        with patch.object(build, "available", lambda: False) if way == "fp32 by torch" else nullcontext():
            dtype = torch.float64 if way == "fp64" else torch.float32
            for what, difference, labels in _in_batches(times, seed, dtype):
                yield way, f"{what}, {way}", difference, labels


def _in_batches(times: int, seed: int, dtype: torch.dtype) -> Iterator[tuple[str, float, bool]]:
    rng = np.random.default_rng(seed)
    for pooling in POOLINGS:
        model = tiny_model(pooling).to(dtype).eval()
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
    """Labels; a similarity is none, the limits on scores are all that can be asked of it."""
    return np.empty(0) if task == "sts" else OBJECTIVES[task].decide(scores.float().numpy(), paper.TASKS[task]).values


def _over_neighbours(blocks: Any, tokens: int, heads: int, device: torch.device) -> Layout:
    """All sequences of a length taken for one."""
    joined = tuple(type(block)(1, block.count * block.length) for block in blocks)
    return lay_out_groups(joined, tokens, heads, device)


def _packed_over_neighbours(blocks: Any, heads: int) -> Packed:
    return lay_out_packed(tuple(type(block)(1, block.count * block.length) for block in blocks), heads)


def _unmasked(*stream: Any) -> Layout:
    layout = lay_out_groups(*stream)
    return replace(layout, groups=tuple(group._replace(mask=None) for group in layout.groups))


def _counted_on(sequences: Any, multiple: int = 1) -> TokenStream:
    stream = lay_out(sequences, multiple)
    positions = torch.arange(len(stream.ids)) % 50
    return TokenStream(stream.ids, positions, stream.segments, stream.blocks, stream.rank, stream.tokens)


def _out_of_order(sequences: Any, multiple: int = 1) -> TokenStream:
    stream = lay_out(sequences, multiple)
    return TokenStream(
        stream.ids, stream.positions, stream.segments, stream.blocks, torch.arange(len(stream.rank)), stream.tokens
    )


def _centred(hidden: Tensor, blocks: Any) -> Tensor:
    return mean(hidden, blocks) - 1e-4 * hidden.mean(0)


PLANTED: list[tuple[str, Any]] = [
    ("attention over neighbours", patch.object(attention, "lay_out_groups", _over_neighbours)),
    *(
        [("a kernel's attention over neighbours", patch.object(attention, "lay_out_packed", _packed_over_neighbours))]
        * build.available()
    ),
    ("attention to padding", patch.object(attention, "lay_out_groups", _unmasked)),
    ("positions counted through the batch", patch.object(batches, "lay_out", _counted_on)),
    ("rows returned in stream order", patch.object(batches, "lay_out", _out_of_order)),
    ("pooling minus a ten-thousandth of the batch's mean", patch.dict(POOLINGS, {"mean": _centred})),
    ("dropout left on", patch.object(MultitaskModel, "eval", MultitaskModel.train)),
]
