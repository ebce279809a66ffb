"""The multitask training loop (section 4.3): `Training.run`; the methods below it are its parts, in order."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import NamedTuple

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
from mtbert.training.history import Progress, kept_epoch
from mtbert.training.log import Observer, Step, log_checksum, log_line
from mtbert.training.recipe import Recipe
from mtbert.training.sampling import Draw, batches_per_step, schedule
from mtbert.training.step import Loss, naming_batch_size
from mtbert.training.stop import stop_requests

# Losses are read after this many batches: reading one from a GPU waits until the GPU is idle.
UNREAD = {"cpu": 1, "cuda": 32}


class Taken(NamedTuple):
    """A batch of a step, whose loss, (), is still on the device."""

    step: int
    epoch: int
    task: str
    loss: Tensor
    tokens: int


@dataclass
class Training:
    """A run's training. `run` trains the engine's model in place, resuming from the checkpoint in `work` if there is one.

    Attributes:
        data: training split by task, in the order of the tasks.
        losses: loss by task, of (scores, labels).
        evaluate: returns the model's metrics for the history; called inside `engine.inference()` before training and
            after each epoch. If they have `held_out`, the weights of the epoch where it is highest are kept.
        work: folder for checkpoints.
        checkpoint_seconds: time between checkpoints; results do not depend on it.
        group: the processes that train the model together; the first one evaluates and writes the checkpoints.
    """

    engine: Engine
    data: Mapping[str, Split]
    losses: Mapping[str, Loss]
    recipe: Recipe
    _: KW_ONLY
    wrapper: Wrapper
    evaluate: Callable[[MultitaskModel], dict[str, float | None]]
    observers: Sequence[Observer] = ()
    work: Path
    checkpoint_seconds: float
    group: Group = ALONE

    def run(self) -> Progress:
        """Take all steps.

        Raises:
            MtbertError: a loss or an updated weight is not finite, memory ran out, or another process has ended. A step
                whose loss is not finite does not update the weights, and the last checkpoint is kept.
            Stopped: SIGINT or SIGTERM was received, by any of the processes; the current step is finished and its
                checkpoint written first.
        """
        self._resume()
        epochs, per_step = self._schedule(), batches_per_step(self.recipe.sampler, len(self.data))
        self.steps = sum(map(len, epochs)) // per_step
        with stop_requests() as self.stop:
            if self.done:
                for observer in self.observers:
                    observer.resume(self.done, self.steps)
            if not self.progress.history:
                self._close_epoch(0)
            self.model.train()
            for epoch, draws in enumerate(epochs, start=1):
                for start in range(0, len(draws), per_step):
                    self.step += 1
                    if self.step > self.done:
                        self._measure_conflicts()
                        self._take_step(epoch, draws[start : start + per_step])
                        self._save_or_stop(last=start + per_step == len(draws))
                if epoch == len(self.progress.history):
                    self._close_epoch(epoch, len(draws))
        self._set_final_weights()
        self.progress.seconds = time.monotonic() - self.began
        return self.progress

    def _resume(self) -> None:
        """Set the state: that of the checkpoint if there is one."""
        self.model = self.engine.model
        self.optimizer = self.engine.optimizer(self.recipe)
        self.average = Average(self.optimizer, self.recipe.optimization.average)
        self.began = self.saved = time.monotonic()
        self.progress = Progress(dict.fromkeys(self.data, 0), dict.fromkeys(self.data, 0))
        self.best: dict[str, Tensor] = {}  # the trained weights of the best epoch, if epochs are compared
        self.done = self.step = 0  # steps of the checkpoint, and so far
        self.unread: list[Taken] = []
        if found := load_checkpoint(self.work, self.model, self.optimizer):
            self.done, self.progress, self.best = found[0], Progress(**found[1]), found[2]
        self.group.check_same(
            "checkpoint",
            {"step": self.done, "log": self.progress.log},
            f"{self.work} must be the same folder for all processes; if it is, run the same command again",
        )
        if self.progress.processes[-1:] != [self.group.size]:
            self.progress.processes.append(self.group.size)
        self.began -= self.progress.seconds

    def _schedule(self) -> list[list[Draw]]:
        """The run's batches, by epoch."""
        recipe = self.recipe
        sizes = {task: len(split) for task, split in self.data.items()}
        lengths = {
            task: recipe.passes * row_tokens(split, self.model.views(task), self.wrapper.max_tokens)
            for task, split in self.data.items()
        }
        return schedule(sizes, recipe.batch_size, recipe.sampler, recipe.epoch_end, recipe.seed, recipe.epochs, lengths)

    def _measure_conflicts(self) -> None:
        """Measure the conflicts between the tasks' gradients before this step, if it is one of those where the run does so."""
        before, interval = self.step - 1, self.recipe.measure_conflicts
        if interval and before % interval == 0 and self.group.first:
            with naming_batch_size(self.engine.compute, f"conflicts after step {before}"):
                measured = measure_conflicts(self.engine, self.data, self.losses, self.recipe, self.wrapper, before)
            self.progress.conflicts += map(list, measured)

    def _take_step(self, epoch: int, draws: list[Draw]) -> None:
        """Forward, backward, update, on one batch, or on one of each task by the joint sampler."""
        recipe, group = self.recipe, self.group
        batches = [
            make_batch(task, self.data[task], np.tile(rows, recipe.passes), self.model.views(task), self.wrapper)
            for task, rows in draws
        ]
        tokens = [batch.stream.tokens for batch in batches]
        if group.size > 1:
            batches = [batch.part(group.rank, group.size, recipe.passes) for batch in batches]
        if recipe.optimization.varies:
            set_rates(self.optimizer, recipe.optimization.factor(self.step, self.steps))
        tasks = [draw.task for draw in draws]
        with naming_batch_size(self.engine.compute, f"step {self.step} ({', '.join(tasks)})"):
            if recipe.sampler == "joint":
                losses = self.engine.joint_step(batches, self.losses, recipe.seed, self.step)
            else:
                losses = [self.engine.step(batches[0], self.losses[tasks[0]], recipe.seed, self.step)]
        self.average.update(self.step)
        self.unread += [Taken(self.step, epoch, *one) for one in zip(tasks, losses, tokens, strict=True)]

    def _save_or_stop(self, last: bool) -> None:
        """After a step: read the losses and write a checkpoint if one of them is due; stop if that was asked for.

        Args:
            last: whether this is the epoch's last step, whose checkpoint waits for the evaluation.
        """
        stopping = self.stop.agreed(self.group)
        due = self._due() and not last
        if due or stopping or last or len(self.unread) >= UNREAD[self.engine.compute.device.type]:
            self._read_losses()
        if due or stopping:
            self._save()
        if stopping:
            raise self.stop.after(self.step, self.steps)

    def _read_losses(self) -> None:
        """Log the losses of the steps taken and pass them to the observers; waits for the device once.

        Raises:
            MtbertError: a loss is NaN or infinite.
        """
        values = torch.stack([taken.loss for taken in self.unread]).tolist()
        for (step, epoch, task, _, tokens), loss in zip(self.unread, values, strict=True):
            if loss - loss != 0:  # NaN or infinite
                raise MtbertError(
                    f"step {step} ({task}): the loss is {loss}; lower this run's learning rates, or set compute.precision: fp32"
                )
            self.progress.loss_sum += loss
            self.progress.batches[task] += 1
            self.progress.tokens[task] += tokens
            logged = Step(step, self.steps, epoch, task, loss, tokens)
            self.progress.log = log_checksum(self.progress.log, log_line(logged))
            for observer in self.observers:
                observer.step(logged)
        self.unread.clear()

    def _close_epoch(self, epoch: int, batches: int = 0) -> None:
        """Evaluate after an epoch of so many batches, and add its row to the history; epoch 0 is the model before training."""
        progress, metrics = self.progress, dict[str, float | None]()
        if epoch:
            check_finite(self.step, self.model.state_dict())
        # A stopped evaluation is made again after resuming; first all processes must hear of it.
        with self.average.applied(), suppress(Stopped), self.stop.between_steps(), self.engine.inference():
            if self.group.first:
                metrics = self.evaluate(self.model)
            if metrics.get("held_out") is not None and kept_epoch([*progress.history, metrics]) == epoch:
                self.best = {name: value.detach().clone() for name, value in trained(self.model).items()}
        if self.stop.agreed(self.group):
            if self.step > self.done:
                self._save()
            raise self.stop.after(self.step, self.steps)
        row = {"epoch": epoch, "step": self.step, "tokens": sum(progress.tokens.values())}
        progress.history.append(row | {"train_loss": progress.loss_sum / batches if batches else None} | metrics)
        progress.loss_sum = 0.0
        for observer in self.observers:
            observer.epoch(progress.history)
        if epoch and epoch < self.recipe.epochs and self._due():
            self._save()

    def _due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.group.first and time.monotonic() - self.saved >= self.checkpoint_seconds

    def _save(self) -> None:
        """Write a checkpoint of the steps so far."""
        if self.group.first:
            self.progress.seconds = time.monotonic() - self.began
            save_checkpoint(self.work, self.model, self.optimizer, self.step, asdict(self.progress), self.best)
            self.saved = time.monotonic()

    def _set_final_weights(self) -> None:
        """Replace the weights by their averages and by those of the best epoch, if the run has these."""
        self.average.apply()
        parameters = trained(self.model)  # get_parameter fails for a head named like an attribute of torch's modules
        with torch.no_grad():
            for name, value in self.best.items():
                parameters[name].copy_(value)
