"""Figures 1 and 2: a trainer killed at random instants ends in the same bits as an undisturbed one, and bugs in resuming are noticed."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from mtbert.files import atomic_write_text
from mtbert.model.multitask import MultitaskModel
from mtbert.training import loop, sampling
from mtbert.training.log import StepLog
from mtbert.training.sampling import Draw
from tests.project import ended, fork, isolated
from tests.reliability.trainer import RUNS, Plant, attempt, left, train_here, training_project
from tests.reliability.trial import Tally

KILL_STEP = 20  # in the second epoch of every run


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Figure 1 and figure 2, in a process of their own."""
    return isolated(_trials, quick, seed, folder)


def _trials(quick: bool, seed: int, folder: Path) -> list[Tally]:
    runs = ["dora_square_root"] if quick else RUNS
    training_project(folder / "project", runs)
    kills = Tally(1, "SIGKILL of the trainer at random instants", "100% bit-equal", seed)
    plants = Tally(2, "planted resume bugs", "all caught", seed)
    per_run, bugs = (3, 3) if quick else (21, 1)  # every third bug in the quick tier
    rng = random.Random(seed)
    undisturbed = {}
    for name in runs:
        began = time.monotonic()
        undisturbed[name] = _whole(name)
        length = time.monotonic() - began
        _killed(name, per_run, length, undisturbed[name], rng, kills)

    name = runs[0]
    for bug, forget in list(RESUME_BUGS.items())[::bugs]:
        caught = _resumed(name, partial(_loads, forget)) != undisturbed[name]
        plants.trial(caught, f"{bug}: not noticed")
        kills.control(caught, bug)
    # The others change an undisturbed run too, so compare with an undisturbed run that has the bug.
    for bug, plant in list(OTHER_BUGS.items())[::bugs]:
        caught = _resumed(name, plant) != _whole(name, plant)
        plants.trial(caught, f"{bug}: not noticed")
        kills.control(caught, bug)
    plants.control(_resumed(name) == undisturbed[name], "a false alarm without a bug")
    kills.note = f"{len(runs)} of {len(RUNS)} samplers and kinds"
    return [kills, plants]


def _whole(name: str, plant: Plant | None = None) -> dict[str, str]:
    if attempt(name, plant):
        raise RuntimeError(f"{name}: an undisturbed run failed")
    return left(name)


def _killed(name: str, kills: int, length: float, expected: dict[str, str], rng: random.Random, tally: Tally) -> None:
    """Kill attempts of `name` at random instants until `kills` of them died; compare each run that ends."""
    died = 0
    while died < kills:
        delays = []
        while True:
            delays.append(rng.uniform(0, length))
            status = _kill_after(name, delays[-1])
            if status != -signal.SIGKILL:
                break
            died += 1
        equal = status == 0 and left(name) == expected
        for delay in delays[:-1]:
            tally.trial(equal, f"{name}: killed after {delay:.3f} s, among {len(delays) - 1} kills: not bit-equal")


def _kill_after(name: str, seconds: float) -> int:
    child = fork(lambda: train_here(name))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def _resumed(name: str, plant: Plant | None = None) -> dict[str, str]:
    """Kill a run in KILL_STEP and start it again; returns its files' checksums, or nothing if the second attempt fails."""
    if attempt(name, plant, KILL_STEP) != -signal.SIGKILL:
        raise RuntimeError(f"{name}: did not reach step {KILL_STEP}")
    if attempt(name, plant) == 0:
        return left(name)
    shutil.rmtree(".mtbert")
    return {}


Found = tuple[int, dict[str, Any], dict[str, Tensor]]
Forget = Callable[[Found, MultitaskModel, torch.optim.Optimizer], Found]


def _loads(forget: Forget) -> None:
    """Plant a resume bug: load the checkpoint correctly, then damage the state."""
    real = loop.load_checkpoint

    def load(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Found | None:
        before = [parameter.detach().clone() for parameter in model.parameters()]
        found = real(folder, model, optimizer)
        model.fresh = before
        return found and forget(found, model, optimizer)

    patch.object(loop, "load_checkpoint", load).start()


def _optimizer_part(part: str, found: Found, _model: Any, optimizer: torch.optim.Optimizer) -> Found:
    for state in optimizer.state.values():
        state[part].zero_()
    return found


def _last_tensor(found: Found, model: Any, _optimizer: torch.optim.Optimizer) -> Found:
    *_, last = model.parameters()
    last.data.copy_(model.fresh[-1])
    return found


def _epoch(found: Found, _model: Any, _optimizer: torch.optim.Optimizer) -> Found:
    """After a restart, all epochs use the data order of the first."""
    real: Any = sampling.epoch_schedule

    def schedule(*arguments: Any) -> list[Draw]:
        return real(*arguments[:-1], 0)

    patch.object(sampling, "epoch_schedule", schedule).start()
    return found


# Bugs that tests/training/test_loop.py does not plant.
RESUME_BUGS: dict[str, Forget] = {
    "first moment dropped": partial(_optimizer_part, "exp_avg"),
    "second moment dropped": partial(_optimizer_part, "exp_avg_sq"),
    "optimizer's step count dropped": partial(_optimizer_part, "step"),
    "the last tensor dropped": _last_tensor,
    "a step repeated": lambda found, *_: (found[0] - 1, *found[1:]),
    "epoch dropped": _epoch,
}


def _masks_from_process() -> None:
    patch.object(MultitaskModel, "reseed", lambda *_: None).start()


def _order_from_process() -> None:
    real: Any = sampling.epoch_schedule
    restarts = len(list(Path(".mtbert").glob("*/latest.json")))

    def schedule(*arguments: Any) -> list[Draw]:
        *others, seed, epoch = arguments
        return real(*others, seed + restarts, epoch)

    patch.object(sampling, "epoch_schedule", schedule).start()


def _log_appended() -> None:
    def opened(self: StepLog, path: Path, done: int, _checksum: str | None) -> None:
        if not done:
            atomic_write_text(path, self.HEADER)
        self._file = path.open("a", encoding="utf-8")

    patch.object(StepLog, "__init__", opened).start()


OTHER_BUGS: dict[str, Plant] = {
    "state of the random generator dropped (masks)": _masks_from_process,
    "state of the random generator dropped (data order)": _order_from_process,
    "steps.csv not cut back to the checkpoint": _log_appended,
}
