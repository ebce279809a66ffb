"""Tiny runs by one process or several. As a script that torchrun starts it trains all CASES and writes what became of them.

`torchrun --nproc-per-node N -m tests.training.trainer FOLDER DEVICE`: the first process writes FOLDER/CASE.json, the losses,
and FOLDER/CASE.safetensors, the weights.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.work import objectives
from mtbert.engines import engine_for, kernels
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.paper import TASKS
from mtbert.training.compute import Compute
from mtbert.training.distributed import ALONE, Group, joined, placed
from mtbert.training.engine import Engine, Plain
from mtbert.training.log import Observer, Step
from mtbert.training.loop import Training
from mtbert.training.recipe import Recipe
from mtbert.training.task_losses import task_losses
from mtbert.training.uncertainty import UncertaintyWeights
from tests.tiny import WRAPPER, adapt, tiny_model, tiny_split

HEADS = ("u", "v", "c")
OBJECTIVES = objectives(HEADS, HEADS)
LOSSES = {name: one.loss() for name, one in OBJECTIVES.items()}
# Batches of 5, the last one of each pass of 1, 4 and 2.
SIZES = {"sst": 16, "quora": 19, "sts": 12}


class Case(NamedTuple):
    """A run: fast or plain engine, the type of weights or products, pooling, adapter, the probability of all dropouts, whether it
    has R-Drop and learned weights of the tasks, and its sampler."""

    fast: bool
    type: str
    pooling: str
    method: str
    dropout: float
    other_losses: bool = False
    sampler: str = "round_robin"

    def model(self) -> MultitaskModel:
        model = tiny_model(self.pooling, HEADS, HEADS, dropout=self.dropout, head_dropout=self.dropout)
        if self.method != "full":
            adapt(model, self.method, dropout=self.dropout)
        if self.other_losses:
            model.uncertainty = UncertaintyWeights(TASKS)
        return model.double() if self.type == "fp64" else model

    def engine(self, device: str = "cpu") -> Engine:
        compute = placed(Compute(torch.device(device), bf16=self.type == "bf16"))
        model = self.model().to(compute.device)
        return engine_for(model, compute) if self.fast else Plain(model, compute)


# In fp64 no difference comes from rounding.
CASES = {
    "plain-fp64": Case(False, "fp64", "mean", "full", 0.3),
    "plain-fp64-dora": Case(False, "fp64", "cls", "dora", 0.3),
    "plain-fp64-pal": Case(False, "fp64", "cls", "pal", 0.3),
    "plain-fp64-other-losses": Case(False, "fp64", "mean", "full", 0.3, True),
    "plain-fp64-joint": Case(False, "fp64", "mean", "full", 0.3, True, "joint"),
    "plain-fp32": Case(False, "fp32", "mean", "full", 0.3),
    "plain-fp32-no-dropout": Case(False, "fp32", "mean", "full", 0.0),
    **(
        {
            "fast-fp32": Case(True, "fp32", "mean", "full", 0.3),
            "fast-fp32-dora": Case(True, "fp32", "cls", "dora", 0.3),
            "fast-fp32-houlsby": Case(True, "fp32", "cls", "houlsby", 0.3),
            "fast-bf16": Case(True, "bf16", "mean", "full", 0.3),
        }
        if kernels()[0]
        else {}
    ),
}
# The fast engine for CUDA draws other masks for another number of processes.
GPU_CASES = {
    "plain-fp64": CASES["plain-fp64"],
    "plain-fp32": CASES["plain-fp32"],
    "fast-bf16": Case(True, "bf16", "mean", "full", 0.0),
}


class Losses(Observer, list[float]):
    """The loss of each step."""

    def step(self, step: Step) -> None:
        self.append(step.loss)


def trained(case: Case, group: Group = ALONE, device: str = "cpu") -> tuple[list[float], dict[str, Tensor]]:
    """Losses by step and weights after one epoch; without checkpoints."""
    engine, losses, weights = case.engine(device), Losses(), None
    if case.other_losses:
        weights = engine.model.uncertainty
        assert isinstance(weights, UncertaintyWeights)
    recipe = Recipe(case.sampler, "depletion", epochs=1, batch_size=5, learning_rate=1e-4, seed=11)
    if case.sampler == "joint":
        recipe = replace(recipe, measure_conflicts=2)
    with tempfile.TemporaryDirectory() as folder:
        Training(
            engine,
            {task: tiny_split(task, rows) for task, rows in SIZES.items()},
            LOSSES if weights is None else task_losses(OBJECTIVES, r_drop=1.0, uncertainty=weights),
            recipe if weights is None else replace(recipe, passes=2, uncertainty_learning_rate=0.01),
            wrapper=WRAPPER,
            evaluate=lambda _: {},
            observers=[losses],
            work=Path(group.of_first(folder)),
            checkpoint_seconds=1e9,
            group=group,
        ).run()
    return losses, {name: weight.cpu() for name, weight in engine.model.state_dict().items()}


def main(folder: Path, device: str) -> None:
    """Train all cases for a device as one of torchrun's processes."""
    torch.set_num_threads(1)
    with joined(placed(Compute(torch.device(device), bf16=False))) as group:
        for name, case in (CASES if device == "cpu" else GPU_CASES).items():
            losses, weights = trained(case, group, device)
            if group.first:
                (folder / f"{name}.json").write_text(json.dumps(losses), encoding="utf-8")
                save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
