"""Measure where the tasks' gradients conflict: their cosines by layer and pair of tasks (Yu et al. 2020), as training goes on.

A measurement changes nothing of the training. Its batches and dropout masks are functions of the seed and the step, and none of
those of a training step.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.tabular import write_csv
from mtbert.training.engine import Engine
from mtbert.training.joint import TaskGradients, shared_parameters
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss

CONFLICTS = "conflicts.csv"
WHOLE = "all"  # the row of all layers together
APART = 2**192  # added to a run's seed, which makes a longer key than training has anywhere


class Conflict(NamedTuple):
    """A row of conflicts.csv.

    Attributes:
        step: training steps done before the measurement.
        layer: embeddings, 1 to L, pooler, or all of them together.
        first, second: the tasks.
        cosine: of their gradients; below 0 they conflict. None if a gradient is zero or not finite.
        first_norm, second_norm: of the gradients; None if not finite.
    """

    step: int
    layer: str
    first: str
    second: str
    cosine: float | None
    first_norm: float | None
    second_norm: float | None


def measure_conflicts(
    engine: Engine, data: Mapping[str, Split], losses: Mapping[str, Loss], recipe: Recipe, wrapper: Wrapper, done: int
) -> list[Conflict]:
    """The conflicts between the tasks of `data` after `done` steps, each task's gradient being that of a batch of its own.

    Args:
        data: training split by task; the others as for `mtbert.training.loop.Training`.
    """
    model = engine.model
    tasks = TaskGradients(model, len(data))
    model.reseed(recipe.seed + APART, done)
    for index, (task, split) in enumerate(data.items()):
        rng = np.random.default_rng([recipe.seed + APART, done, index])
        rows = rng.choice(len(split), size=min(recipe.batch_size, len(split)), replace=False)
        batch = make_batch(task, split, np.tile(rows, recipe.passes), model.views(task), wrapper)
        engine.gradients(batch.to(engine.compute.device), losses[task])
        tasks.take(index)
    gramians: dict[str, Tensor] = defaultdict(lambda: torch.zeros(len(data), len(data), dtype=torch.float64))
    for name, columns in zip(shared_parameters(model), tasks.columns(), strict=True):
        gramian = (columns @ columns.T).double().cpu()
        for layer in (layer_of(name), WHOLE):
            gramians[layer] += gramian
    return [
        _conflict(done, layer, gramian, (first, second), list(data))
        for layer, gramian in gramians.items()
        for first, second in combinations(range(len(data)), 2)
    ]


def layer_of(name: str) -> str:
    """The layer of a shared parameter: embeddings, 1 to L, or pooler."""
    part, *rest = name.removeprefix("encoder.").split(".")
    return str(int(rest[0]) + 1) if part == "layers" else part


def write_conflicts(path: Path, rows: Sequence[Sequence[str | int | float | None]]) -> None:
    """Write conflicts.csv, a row per measurement, layer and pair of tasks."""
    write_csv(path, list(Conflict._fields), rows)


def _conflict(done: int, layer: str, gramian: Tensor, pair: tuple[int, int], tasks: Sequence[str]) -> Conflict:
    first, second = pair
    norms = [float(gramian[one, one]) ** 0.5 for one in pair]
    product = norms[0] * norms[1]
    cosine = float(gramian[pair]) / product if 0 < product < math.inf else None
    return Conflict(done, layer, tasks[first], tasks[second], cosine, *(n if math.isfinite(n) else None for n in norms))
