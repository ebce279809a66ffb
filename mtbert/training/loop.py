"""The multitask training loop (section 4.3): read it top to bottom."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.training.adamw import AdamW
from mtbert.training.checkpoint import check_finite, load_checkpoint, save_checkpoint
from mtbert.training.compute import Compute
from mtbert.training.graphs import Steps
from mtbert.training.sampling import epoch_schedule
from mtbert.training.step import Loss

# Steps that may pass until their losses are read: to read one from a GPU is to wait until it has nothing left to do.
UNREAD = {"cpu": 1, "cuda": 32}


class Taken(NamedTuple):
    """A step whose loss, (), still lies on the device."""

    step: int
    epoch: int
    task: str
    loss: Tensor
    tokens: int


class Step(NamedTuple):
    """What a step reports to whoever watches: `loss` is the batch's mean, `tokens` its real tokens."""

    step: int
    steps: int
    epoch: int
    task: str
    loss: float
    tokens: int


def train(
    model: MultitaskModel,
    data: Mapping[str, Split],
    losses: Mapping[str, Loss],
    *,
    wrapper: Wrapper,
    compute: Compute,
    sampler: str | float,
    epoch_end: str | int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    evaluate: Callable[[MultitaskModel], dict[str, float | None]],
    on_step: Callable[[Step], None],
    on_epoch: Callable[[dict[str, Any]], None],
    work: Path,
    checkpoint_seconds: float,
) -> dict[str, Any]:
    """Train `model` in place on the tasks of `data`; resumes from the checkpoint in `work`, if there is one.

    Args:
        data: training split by task, in the order of the tasks.
        losses: loss by task, of (scores, labels).
        evaluate: metrics of the model, called before training and after each epoch; its values go into the history.
        on_step, on_epoch: observers; they see the same sequence whether or not the run was interrupted, from the
            checkpoint on (`on_epoch` also sees the epochs before it again).
        work: folder for checkpoints.
        checkpoint_seconds: time between checkpoints; results do not depend on it.

    Returns:
        `history` (a row per epoch), `steps`, `batches` by task, `tokens`, and `seconds` over all processes, without those
        between a checkpoint and the kill after it.

    Raises:
        MtbertError: the loss is not finite (the step's update is then left out), or memory ran out, or an update left a weight
            that is not finite; the last checkpoint stays as it is.
    """
    sizes = {task: len(split) for task, split in data.items()}
    optimizer = AdamW(model, learning_rate)

    began = time.monotonic()
    done, progress = load_checkpoint(work, model, optimizer) or (0, _nothing_done(data))
    began -= progress["seconds"]
    for row in progress["history"]:
        on_epoch(row)
    if not progress["history"]:
        _close_epoch(progress, {"epoch": 0, "step": 0, "train_loss": None, **evaluate(model)}, on_epoch)

    schedules = [epoch_schedule(sizes, batch_size, sampler, epoch_end, seed, epoch) for epoch in range(epochs)]
    steps = sum(map(len, schedules))
    step, saved = 0, time.monotonic()
    taken: list[Taken] = []
    model.train()
    stepper = Steps(model, optimizer, losses, compute, batch_size, wrapper.max_tokens)
    for epoch, schedule in enumerate(schedules, start=1):
        for task, rows in schedule:
            step += 1
            if step <= done:
                continue
            batch = make_batch(task, data[task], rows, model.views(task), wrapper)
            loss = stepper.take(batch, seed, step)
            taken.append(Taken(step, epoch, task, loss, batch.stream.tokens))
            save = time.monotonic() - saved >= checkpoint_seconds and step < sum(map(len, schedules[:epoch]))
            if save or len(taken) >= UNREAD[compute.device.type]:
                read_losses(taken, progress, steps, on_step)
            if save:
                save_checkpoint(work, model, optimizer, step, {**progress, "seconds": time.monotonic() - began})
                saved = time.monotonic()
        read_losses(taken, progress, steps, on_step)
        if step <= done and len(progress["history"]) > epoch:
            continue
        check_finite(step, model.state_dict())
        row = {"epoch": epoch, "step": step, "train_loss": progress["loss_sum"] / len(schedule), **evaluate(model)}
        _close_epoch(progress, row, on_epoch)
        if time.monotonic() - saved >= checkpoint_seconds and epoch < epochs:
            save_checkpoint(work, model, optimizer, step, {**progress, "seconds": time.monotonic() - began})
            saved = time.monotonic()
    return {
        "history": progress["history"],
        "steps": steps,
        "batches": progress["batches"],
        "tokens": progress["tokens"],
        "seconds": time.monotonic() - began,
    }


def read_losses(taken: list[Taken], progress: dict[str, Any], steps: int, on_step: Callable[[Step], None]) -> None:
    """Count the steps taken, tell `on_step` of them, and forget them.

    Raises:
        MtbertError: a loss is NaN or infinite.
    """
    for (step, epoch, task, _, tokens), loss in zip(taken, _values([one.loss for one in taken]), strict=True):
        if loss - loss != 0:  # NaN or infinite
            raise MtbertError(
                f"step {step} ({task}): the loss is {loss}; lower this run's learning_rate, or set compute.precision: fp32"
            )
        progress["loss_sum"] += loss
        progress["batches"][task] += 1
        progress["tokens"] += tokens
        on_step(Step(step, steps, epoch, task, loss, tokens))
    taken.clear()


def _values(losses: list[Tensor]) -> list[float]:
    """All of them in one wait."""
    return torch.stack(losses).tolist() if losses else []


def _nothing_done(data: Mapping[str, Split]) -> dict[str, Any]:
    return {"history": [], "loss_sum": 0.0, "batches": dict.fromkeys(data, 0), "tokens": 0, "seconds": 0.0}


def _close_epoch(progress: dict[str, Any], row: dict[str, Any], on_epoch: Callable[[dict[str, Any]], None]) -> None:
    progress["history"].append(row)
    progress["loss_sum"] = 0.0
    on_epoch(row)
