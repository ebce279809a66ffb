"""Figure 19: two hours' worth of steps leak no memory, no tensors and no file handles."""

import ctypes
import gc
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil
import torch
from scipy.stats import theilslopes
from torch import Tensor

import stages.train
from mtbert.training import loop
from mtbert.training.engine import Plain
from mtbert.training.log import Step, StepLog
from mtbert.training.step import Loss
from tests.project import edit, forked, isolated
from tests.reliability.trainer import quietly, train_here, training_project
from tests.reliability.trial import Tally

# Two hours at a quarter of a second a step, which is faster than any run of reports/*/provenance.json. The trial's
# clock advances by that at each step, so there are as many checkpoints as in two hours: 120.
STEP_SECONDS, CHECKPOINT_SECONDS = 0.25, 60
# EVERY is a multiple of the number of tasks, so all samples follow a batch of the same task.
STEPS, EPOCHS, EVERY = 28_800, 10, 60
QUICK_STEPS, QUICK_EPOCHS, QUICK_EVERY = 600, 2, 15
WARM_UP = 1 / 3  # share of the steps in which allocators and optimizer state grow
# Most growth in 10,000 steps, as the upper end of the slope's 95% interval.
LIMITS = {"resident memory (MiB)": 1.0, "tensors": 0.0, "file handles": 0.0}
RUN = "dora_round_robin"  # covers what a run without an adapter does

Samples = dict[str, list[float]]


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """The train stage on tiny data; in the quick tier one short run, too short to measure the slope of memory."""
    tally = Tally(19, "two hours' worth of steps", "< 1 MiB per 10,000 steps, no tensor, no file handle", seed)
    length = (QUICK_STEPS, QUICK_EPOCHS, QUICK_EVERY) if quick else (STEPS, EPOCHS, EVERY)
    short = length if quick else (STEPS // 8, EPOCHS // 5, EVERY)
    measures = [name for name in LIMITS if not (quick and "memory" in name)]
    plants = {bug: plant for bug, (plant, measure) in PLANTED.items() if measure in measures}
    found = isolated(_measured, length, plants, short, seed, folder / "project")
    slopes = {measure: _slope(found[RUN], measure) for measure in measures}
    for measure, slope in slopes.items():
        tally.trial(slope <= LIMITS[measure], f"{measure}: {slope:.3f} more in 10,000 steps")
    for bug in plants:
        measure = PLANTED[bug][1]
        # Memory still grows in such a short run, so compare with the first steps of the correct run.
        sound = {name: values[: len(found[bug]["step"])] for name, values in found[RUN].items()}
        tally.control(_slope(found[bug], measure) - _slope(sound, measure) > LIMITS[measure], bug)
    growth = ", ".join(f"{measure} {slope:.3f}" for measure, slope in slopes.items())
    tally.note = f"{length[0]:,} steps; largest growth in 10,000 steps: {growth}"
    return [tally]


def _slope(samples: Samples, measure: str) -> float:
    """Growth in 10,000 steps after the warm-up: the upper end of the 95% interval of the Theil-Sen slope."""
    warm = int(WARM_UP * len(samples["step"]))
    return 1e4 * float(theilslopes(samples[measure][warm:], samples["step"][warm:], 0.95)[3])


def _measured(
    length: tuple[int, int, int],
    plants: Mapping[str, Callable[[], None]],
    short: tuple[int, int, int],
    seed: int,
    folder: Path,
) -> dict[str, Samples]:
    """Samples of the run without a bug and with each bug planted; each trains in its own fork."""
    training_project(folder, [RUN], CHECKPOINT_SECONDS)
    edit(folder, **{f"runs__{RUN}__seed": seed})
    found = {RUN: _trained(*length)}
    return found | {bug: _trained(*short, plant) for bug, plant in plants.items()}


def _trained(steps: int, epochs: int, every: int, plant: Callable[[], None] | None = None) -> Samples:
    budget = {"epochs": epochs, "epoch_end": steps // epochs, "learning_rate": 1e-4}
    edit(Path(), **{f"runs__{RUN}__{key}": value for key, value in budget.items()})
    for stage, *argument in (("plan",), ("convert", RUN)):
        quietly(stage, *argument)
    if forked(lambda: train_here(RUN, partial(_watched, every, plant))):
        raise RuntimeError(f"{RUN} failed")
    samples: Samples = json.loads(Path("samples.json").read_text(encoding="utf-8"))
    if len(samples["step"]) != steps // every:
        raise RuntimeError(f"{RUN}: {len(samples['step'])} samples of {steps} steps, one each {every}")
    return samples


def _watched(every: int, plant: Callable[[], None] | None) -> None:
    """In this process, advance the loop's clock by steps and take samples."""
    samples: Samples = {name: [] for name in ("step", *LIMITS)}
    gc.collect()
    gc.freeze()  # objects from before training need not be counted each time
    process, clock = psutil.Process(), SimpleNamespace(now=0.0)
    write, close = StepLog.step, StepLog.close

    def watching(self: StepLog, step: Step) -> None:
        write(self, step)
        clock.now += STEP_SECONDS
        if step.step % every == 0:
            gc.collect()
            now = (process.memory_info().rss / 2**20, _tensors(), process.num_fds())
            for name, value in zip(samples, (step.step, *now), strict=True):
                samples[name].append(value)

    def closing(self: StepLog) -> None:
        close(self)
        Path("samples.json").write_text(json.dumps(samples), encoding="utf-8")

    patch.object(loop, "time", SimpleNamespace(monotonic=lambda: clock.now)).start()
    patch.object(StepLog, "step", watching).start()
    patch.object(StepLog, "close", closing).start()
    if plant:
        plant()


def _tensors() -> int:
    # By type(): isinstance would ask lazy modules for their class.
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def _graphs_kept() -> None:
    kept: list[Tensor] = []
    losses = stages.train.losses_of

    def keeping(loss_of: Loss, scores: Tensor, labels: Tensor) -> Tensor:
        kept.append(loss_of(scores, labels))
        return kept[-1]

    def kept_losses(*given: Any) -> dict[str, Loss]:
        return {task: partial(keeping, loss) for task, loss in losses(*given).items()}

    patch.object(stages.train, "losses_of", kept_losses).start()


def _files_kept() -> None:
    kept: list[Any] = []
    save = loop.save_checkpoint

    def saving(folder: Path, *arguments: Any) -> None:
        save(folder, *arguments)
        kept.append((folder / "latest.json").open())

    patch.object(loop, "save_checkpoint", saving).start()


def _memory_kept() -> None:
    """Leak 1 KiB a step outside of Python's memory, as a library would."""
    library, step = ctypes.CDLL(None), Plain.step
    library.malloc.restype = ctypes.c_void_p

    def stepping(*arguments: Any) -> torch.Tensor:
        ctypes.memset(library.malloc(ctypes.c_size_t(1024)), 1, 1024)
        return step(*arguments)

    patch.object(Plain, "step", stepping).start()


PLANTED: dict[str, tuple[Callable[[], None], str]] = {
    "each step's loss kept with its graph": (_graphs_kept, "tensors"),
    "a file left open at each checkpoint": (_files_kept, "file handles"),
    "a kilobyte a step not freed": (_memory_kept, "resident memory (MiB)"),
}
