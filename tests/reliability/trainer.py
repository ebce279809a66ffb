"""Run the real stages in forks: training that may be killed or have a bug planted, and the checksums of what a run leaves."""

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
import torch._dynamo  # imported before forking, so that forks need not
from safetensors.torch import save_file

import stages.train
from mtbert.files import sha256_file
from mtbert.params import load_params
from mtbert.pipeline import saving
from mtbert.pipeline.start import guarded
from mtbert.training import loop
from mtbert.training.log import Step, StepLog
from tests.project import forked, tiny_project, yaml

SAMPLERS = ("sequential", "round_robin", "proportional", "square_root", "balanced")
RUNS = [f"{kind}_{sampler}" for sampler in SAMPLERS for kind in ("full", "dora")]

Plant = Callable[[], None]
"""Puts a bug into this process's trainer."""


def training_project(folder: Path, runs: list[str], checkpoint_seconds: float = 0) -> None:
    """Make a project with some of RUNS, prepare its data, convert its models, and change to its folder.

    Tables and figures of one run show the first.
    """
    tiny_project(
        folder,
        encoder__random={"seed": 1, "layers": 2, "hidden": 32, "heads": 2, "intermediate": 32, "positions": 64},
        prepare__max_tokens=64,
    )
    tree = yaml.load(folder / "params.yaml")
    params = load_params(folder / "params.yaml")
    best, dora = params.runs["best_performance"].model_dump(), params.runs["dora_r4"].model_dump()["adapter"]
    best |= {"epochs": 2, "epoch_end": "depletion", "batch_size": 4, "learning_rate": 0.01}
    dora |= {"rank": 2, "alpha": 2, "dropout": 0.1, "learning_rate": 0.01}
    tree["runs"] = {
        run: {**best, "sampler": run.partition("_")[2], "adapter": dora if run.startswith("dora") else None}
        for run in runs
    }
    one = {"best_performance": runs[0]}
    tree |= {"tables": {"table4": one}, "figures": {"figure2": one, "figure4": one}}
    yaml.dump(tree, folder / "params.yaml")
    os.chdir(folder)
    stages.train.CHECKPOINT_SECONDS = checkpoint_seconds
    for stage in ("plan", "fetch", "encoder", "prepare"):
        quietly(stage)
    for run in runs:
        quietly("convert", run)


def attempt(run: str, plant: Plant | None = None, die_in_step: int | None = None) -> int:
    """Train `run` in a fork, which kills itself after `die_in_step` is logged; returns the exit status."""
    return forked(lambda: train_here(run, plant, die_in_step))


def train_here(run: str, plant: Plant | None = None, die_in_step: int | None = None) -> None:
    """Run the train stage in this process; it also writes the optimizer's final state beside the weights."""
    optimizers: list[torch.optim.Optimizer] = []
    load, save = loop.load_checkpoint, saving.save_model

    def remembering(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        optimizers.append(optimizer)
        return load(folder, model, optimizer)

    def with_optimizer(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        save(folder, tensors, config)
        (optimizer,) = optimizers
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = ((n, key, value) for n, p in enumerate(parameters) for key, value in optimizer.state[p].items())
        save_file({f"{n}.{key}": value.contiguous() for n, key, value in states}, folder / "optimizer.safetensors")

    def dying(self: StepLog, step: Step) -> None:
        write(self, step)
        if step.step == die_in_step:
            os.kill(os.getpid(), signal.SIGKILL)

    write = StepLog.step
    patch.object(loop, "load_checkpoint", remembering).start()
    patch.object(saving, "save_model", with_optimizer).start()
    patch.object(StepLog, "step", dying).start()
    if plant:
        plant()
    with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet):
        stages.train.main(run)


def left(run: str) -> dict[str, str]:
    """sha256 of all files of a trained run: weights, optimizer, history, steps and record."""
    return checksums(Path("models", run))


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of all files of a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def quietly(stage: str, *arguments: str) -> None:
    """Run a stage in a fork, without its output."""

    def work() -> None:
        with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet):
            import_module(f"stages.{stage}").main(*arguments)

    if forked(work):
        raise RuntimeError(f"{stage} {' '.join(arguments)} failed")


def run_stage(stage: str, *arguments: str, limit: int | None = None) -> tuple[int, str]:
    """Run a stage in a fork, in which no file may exceed `limit` bytes; returns its exit status and output."""
    log = Path(tempfile.gettempdir()) / f"mtbert-{os.getpid()}.log"

    def work() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        logged(log, stage, *arguments)

    status = forked(work)
    text = log.read_text(encoding="utf-8")
    log.unlink()
    return status, text


def logged(log: Path, stage: str, *arguments: str) -> NoReturn:
    """Run a stage with its output in `log`, and exit this process with its status."""
    with log.open("w", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = guarded(import_module(f"stages.{stage}").main, *arguments)
        sys.stdout = sys.stderr = sys.__stdout__
    raise SystemExit(status)
