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
from mtbert.errors import MtbertError, Stopped
from mtbert.model.multitask import MultitaskModel
from mtbert.training.adamw import AdamW
from mtbert.training.checkpoint import check_finite, load_checkpoint, save_checkpoint
from mtbert.training.compute import Compute
from mtbert.training.graphs import Steps
from mtbert.training.log import Step, log_checksum, log_line
from mtbert.training.sampling import schedule
from mtbert.training.step import Loss
from mtbert.training.stop import stop_requests

# Steps that may pass until their losses are read: to read one from a GPU is to wait until it has nothing left to do.
UNREAD = {"cpu": 1, "cuda": 32}


class Taken(NamedTuple):
    """A step whose loss, (), still lies on the device."""

    step: int
    epoch: int
    task: str
    loss: Tensor
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
    adapter_learning_rate: float | None = None,
    seed: int,
    evaluate: Callable[[MultitaskModel], dict[str, float | None]],
    on_step: Callable[[Step], None],
    on_epoch: Callable[[dict[str, Any]], None],
    on_resume: Callable[[int, int], None] = lambda _done, _steps: None,
    work: Path,
    checkpoint_seconds: float,
) -> dict[str, Any]:
    """Train `model` in place on the tasks of `data`; resumes from the checkpoint in `work`, if there is one.

    Args:
        data: training split by task, in the order of the tasks.
        losses: loss by task, of (scores, labels).
        learning_rate, adapter_learning_rate: as for `AdamW`.
        evaluate: metrics of the model, called before training and after each epoch; its values go into the history.
        on_step, on_epoch: observers; they see the same sequence whether or not the run was interrupted, from the checkpoint on.
        on_resume: given the steps of the checkpoint that the run goes on from, and all its steps.
        work: folder for checkpoints.
        checkpoint_seconds: time between checkpoints; results do not depend on it.

    Returns:
        `history` (a row per epoch), `steps`, `batches` by task, `tokens`, and `seconds` over all processes, without those
        between a checkpoint and the kill after it.

    Raises:
        MtbertError: the loss is not finite (the step's update is then left out), or memory ran out, or an update left a weight
            that is not finite; the last checkpoint stays as it is.
        Stopped: SIGINT or SIGTERM came; the checkpoint of the step that was then in hand is written.
    """
    sizes = {task: len(split) for task, split in data.items()}
    optimizer = AdamW(model, learning_rate, adapter_learning_rate)

    began = saved = time.monotonic()
    done, progress = load_checkpoint(work, model, optimizer) or (0, _nothing_done(data))
    began -= progress["seconds"]
    schedules = schedule(sizes, batch_size, sampler, epoch_end, seed, epochs)
    steps = sum(map(len, schedules))
    step = 0
    taken: list[Taken] = []

    def save() -> None:
        nonlocal saved
        save_checkpoint(work, model, optimizer, step, {**progress, "seconds": time.monotonic() - began})
        saved = time.monotonic()

    with stop_requests() as stop:

        def close_epoch(epoch: int, train_loss: float | None) -> None:
            try:
                with stop.between_steps():
                    metrics = evaluate(model)
            except Stopped:
                if step > done:
                    save()
                raise stop.after(step, steps) from None
            progress["history"].append({"epoch": epoch, "step": step, "train_loss": train_loss, **metrics})
            progress["loss_sum"] = 0.0
            on_epoch(progress["history"][-1])

        if done:
            on_resume(done, steps)
        if not progress["history"]:
            close_epoch(0, None)

        model.train()
        stepper = Steps(model, optimizer, losses, compute, batch_size, wrapper.max_tokens)
        for epoch, draws in enumerate(schedules, start=1):
            last = step + len(draws)
            for task, rows in draws:
                step += 1
                if step <= done:
                    continue
                batch = make_batch(task, data[task], rows, model.views(task), wrapper)
                loss = stepper.take(batch, seed, step)
                taken.append(Taken(step, epoch, task, loss, batch.stream.tokens))
                due = time.monotonic() - saved >= checkpoint_seconds and step < last
                if due or stop.asked or len(taken) >= UNREAD[compute.device.type]:
                    read_losses(taken, progress, steps, on_step)
                if due or stop.asked:
                    save()
                if stop.asked:
                    raise stop.after(step, steps)
            read_losses(taken, progress, steps, on_step)
            if step <= done and len(progress["history"]) > epoch:
                continue
            check_finite(step, model.state_dict())
            close_epoch(epoch, progress["loss_sum"] / len(draws))
            if time.monotonic() - saved >= checkpoint_seconds and epoch < epochs:
                save()
    return {
        "history": progress["history"],
        "steps": steps,
        "batches": progress["batches"],
        "tokens": progress["tokens"],
        "seconds": time.monotonic() - began,
    }


def read_losses(taken: list[Taken], progress: dict[str, Any], steps: int, on_step: Callable[[Step], None]) -> None:
    """Count the steps taken, give them to `on_step`, and forget them.

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
        about = Step(step, steps, epoch, task, loss, tokens)
        progress["log"] = log_checksum(progress["log"], log_line(about))
        on_step(about)
    taken.clear()


def _values(losses: list[Tensor]) -> list[float]:
    """All of them in one wait."""
    return torch.stack(losses).tolist() if losses else []


def _nothing_done(data: Mapping[str, Split]) -> dict[str, Any]:
    counts = dict.fromkeys(data, 0)
    return {"history": [], "loss_sum": 0.0, "batches": counts, "tokens": 0, "log": "", "seconds": 0.0}
