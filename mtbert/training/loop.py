"""The multitask training loop (section 4.3)."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch, row_tokens
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError, Stopped
from mtbert.model.multitask import MultitaskModel
from mtbert.training.average import Average
from mtbert.training.checkpoint import check_finite, load_checkpoint, save_checkpoint, trained
from mtbert.training.conflicts import measure_conflicts
from mtbert.training.distributed import ALONE, Group
from mtbert.training.engine import Engine, set_rates
from mtbert.training.log import Observer, Step, log_checksum, log_line
from mtbert.training.recipe import Recipe
from mtbert.training.sampling import batches_per_step, schedule
from mtbert.training.step import Loss, naming_batch_size
from mtbert.training.stop import stop_requests

# Losses are read after this many batches: reading one from a GPU waits until the GPU is idle.
UNREAD = {"cpu": 1, "cuda": 32}


@dataclass
class Progress:
    """A run's progress, which is part of its checkpoints.

    Attributes:
        batches, tokens: batches and real tokens trained on, by task.
        history: a row for each epoch: epoch, step, tokens so far, train_loss, and the metrics from `evaluate`.
        loss_sum: sum of the losses of the running epoch.
        log: checksum of the step log.
        seconds: training time, summed over resumed processes; time after a process's last checkpoint is not counted.
        processes: the numbers of processes that took the steps, in order: one number unless a run was resumed by more or fewer.
        conflicts: the rows of conflicts.csv, as in `mtbert.training.conflicts.Conflict`.
    """

    batches: dict[str, int]
    tokens: dict[str, int]
    history: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    log: str = ""
    seconds: float = 0.0
    processes: list[int] = field(default_factory=list)
    conflicts: list[list[Any]] = field(default_factory=list)


class Taken(NamedTuple):
    """A batch of a step, whose loss, (), is still on the device."""

    step: int
    epoch: int
    task: str
    loss: Tensor
    tokens: int


def train(
    engine: Engine,
    data: Mapping[str, Split],
    losses: Mapping[str, Loss],
    recipe: Recipe,
    *,
    wrapper: Wrapper,
    evaluate: Callable[[MultitaskModel], dict[str, float | None]],
    observers: Sequence[Observer] = (),
    work: Path,
    checkpoint_seconds: float,
    group: Group = ALONE,
) -> Progress:
    """Train the engine's model in place on the tasks of `data`, resuming from the checkpoint in `work` if there is one.

    Args:
        data: training split by task, in the order of the tasks.
        losses: loss by task, of (scores, labels).
        evaluate: returns the model's metrics for the history; called inside `engine.inference()` before training and
            after each epoch. If they have `held_out`, the weights of the epoch where it is highest are kept.
        work: folder for checkpoints.
        checkpoint_seconds: time between checkpoints; results do not depend on it.
        group: the processes that train the model together; the first one evaluates and writes the checkpoints.

    Raises:
        MtbertError: a loss or an updated weight is not finite, memory ran out, or another process has ended. A step
            whose loss is not finite does not update the weights, and the last checkpoint is kept.
        Stopped: SIGINT or SIGTERM was received, by any of the processes; the current step is finished and its checkpoint
            written first.
    """
    model, device = engine.model, engine.compute.device.type
    optimizer = engine.optimizer(recipe)
    average = Average(optimizer, recipe.optimization.average)
    best: dict[str, Tensor] = {}
    began = saved = time.monotonic()
    done, progress = 0, Progress(dict.fromkeys(data, 0), dict.fromkeys(data, 0))
    if found := load_checkpoint(work, model, optimizer):
        done, progress, best = found[0], Progress(**found[1]), found[2]
    group.check_same(
        "checkpoint",
        {"step": done, "log": progress.log},
        f"{work} must be the same folder for all processes; if it is, run the same command again",
    )
    if progress.processes[-1:] != [group.size]:
        progress.processes.append(group.size)
    began -= progress.seconds
    sizes = {task: len(split) for task, split in data.items()}
    lengths = {
        task: recipe.passes * row_tokens(split, model.views(task), wrapper.max_tokens) for task, split in data.items()
    }
    schedules = schedule(
        sizes, recipe.batch_size, recipe.sampler, recipe.epoch_end, recipe.seed, recipe.epochs, lengths
    )
    per_step = batches_per_step(recipe.sampler, len(data))
    steps = sum(map(len, schedules)) // per_step
    step = 0
    taken: list[Taken] = []

    def save() -> None:
        nonlocal saved
        if not group.first:
            return
        progress.seconds = time.monotonic() - began
        save_checkpoint(work, model, optimizer, step, asdict(progress), best)
        saved = time.monotonic()

    with stop_requests() as stop:

        def close_epoch(epoch: int, train_loss: float | None) -> None:
            nonlocal best
            metrics: dict[str, float | None] = {}
            # A stopped evaluation is made again after resuming; first all processes must hear of it.
            with average.applied(), suppress(Stopped), stop.between_steps(), engine.inference():
                if group.first:
                    metrics = evaluate(model)
                if metrics.get("held_out") is not None and kept_epoch([*progress.history, metrics]) == epoch:
                    best = {name: value.detach().clone() for name, value in trained(model).items()}
            if stop.agreed(group):
                if step > done:
                    save()
                raise stop.after(step, steps)
            tokens = sum(progress.tokens.values())
            row = {"epoch": epoch, "step": step, "tokens": tokens, "train_loss": train_loss}
            progress.history.append(row | metrics)
            progress.loss_sum = 0.0
            for observer in observers:
                observer.epoch(progress.history)

        if done:
            for observer in observers:
                observer.resume(done, steps)
        if not progress.history:
            close_epoch(0, None)

        model.train()
        for epoch, draws in enumerate(schedules, start=1):
            last = step + len(draws) // per_step
            for start in range(0, len(draws), per_step):
                step += 1
                if step <= done:
                    continue
                if group.first and recipe.measure_conflicts and (step - 1) % recipe.measure_conflicts == 0:
                    with naming_batch_size(engine.compute, f"conflicts after step {step - 1}"):
                        measured = measure_conflicts(engine, data, losses, recipe, wrapper, step - 1)
                    progress.conflicts += map(list, measured)
                drawn = draws[start : start + per_step]
                batches = [
                    make_batch(task, data[task], np.tile(rows, recipe.passes), model.views(task), wrapper)
                    for task, rows in drawn
                ]
                tokens = [batch.stream.tokens for batch in batches]
                if group.size > 1:
                    batches = [batch.part(group.rank, group.size, recipe.passes) for batch in batches]
                if recipe.optimization.varies:
                    set_rates(optimizer, recipe.optimization.factor(step, steps))
                tasks = [task for task, _ in drawn]
                with naming_batch_size(engine.compute, f"step {step} ({', '.join(tasks)})"):
                    if recipe.sampler == "joint":
                        found_losses = engine.joint_step(batches, losses, recipe.seed, step)
                    else:
                        found_losses = [engine.step(batches[0], losses[tasks[0]], recipe.seed, step)]
                average.update(step)
                taken += [Taken(step, epoch, *one) for one in zip(tasks, found_losses, tokens, strict=True)]
                stopping = stop.agreed(group)
                due = group.first and time.monotonic() - saved >= checkpoint_seconds and step < last
                if due or stopping or len(taken) >= UNREAD[device]:
                    read_losses(taken, progress, steps, observers)
                if due or stopping:
                    save()
                if stopping:
                    raise stop.after(step, steps)
            read_losses(taken, progress, steps, observers)
            if step <= done and len(progress.history) > epoch:
                continue
            check_finite(step, model.state_dict())
            close_epoch(epoch, progress.loss_sum / len(draws))
            if time.monotonic() - saved >= checkpoint_seconds and epoch < recipe.epochs:
                save()
    average.apply()
    parameters = trained(model)  # get_parameter fails for a head named like an attribute of torch's modules
    with torch.no_grad():
        for name, value in best.items():
            parameters[name].copy_(value)
    progress.seconds = time.monotonic() - began
    return progress


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """The epoch whose weights are kept: the first with the highest `held_out`, or the last if there is none."""
    scores = [row.get("held_out") for row in history]
    found = [score for score in scores if score is not None]
    return scores.index(max(found)) if found else len(history) - 1


def read_losses(taken: list[Taken], progress: Progress, steps: int, observers: Sequence[Observer]) -> None:
    """Read the losses of the steps in `taken`, log them and pass them to the observers; then clear the list.

    Raises:
        MtbertError: a loss is NaN or infinite.
    """
    for (step, epoch, task, _, tokens), loss in zip(taken, _values([one.loss for one in taken]), strict=True):
        if loss - loss != 0:  # NaN or infinite
            raise MtbertError(
                f"step {step} ({task}): the loss is {loss}; lower this run's learning rates, or set compute.precision: fp32"
            )
        progress.loss_sum += loss
        progress.batches[task] += 1
        progress.tokens[task] += tokens
        logged = Step(step, steps, epoch, task, loss, tokens)
        progress.log = log_checksum(progress.log, log_line(logged))
        for observer in observers:
            observer.step(logged)
    taken.clear()


def _values(losses: list[Tensor]) -> list[float]:
    """The losses as floats; waits for the device once."""
    return torch.stack(losses).tolist() if losses else []
