"""Engines take a model's training steps: `Plain` with the modules as they are, those of mtbert/fast faster."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtbert.data.batches import Batch
from mtbert.data.tokens import TokenStream
from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.training.aggregation import weights_by
from mtbert.training.compute import Compute
from mtbert.training.distributed import summed
from mtbert.training.joint import TaskGradients, seeded
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss

# The course's defaults (NOTES).
ADAMW: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "fused": True}


class Engine(Protocol):
    """Trains and runs a model. Parameters, their names and the optimizer's state are the same under every engine.

    Attributes:
        model: the model.
        compute: its device and precision.
    """

    model: MultitaskModel
    compute: Compute

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        """The encoder's last hidden states, as from `BertEncoder.forward`."""

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """Make the optimizer that `step` uses from now on; its state is AdamW's: step, exp_avg, exp_avg_sq."""

    def step(self, batch: Batch, loss_of: Loss, seed: int, step: int) -> Tensor:
        """Take training step number `step` on a batch in host memory: forward, backward, update.

        If the batch is a share, all processes of the run take the step together, each with its own share.

        Returns:
            The whole batch's mean loss, (), on the device. If it is NaN or infinite, the update is skipped.
        """

    def joint_step(
        self, batches: Sequence[Batch], losses: Mapping[str, Loss], seed: int, step: int
    ) -> Sequence[Tensor]:
        """Take training step number `step` on a batch of each of N tasks, by the recipe's aggregation.

        What the tasks share of the encoder gets what the aggregation makes of their gradients, and all other parameters the
        mean, so a head 1 / N of its own task's gradient. With `mean` this is the gradient of the mean of the losses.

        Returns:
            As `step`, for each batch.

        Raises:
            MtbertError: a gradient is NaN or infinite, though no loss is; the weights are not updated.
        """

    def gradients(self, batch: Batch, loss_of: Loss) -> Tensor:
        """Add the whole batch's gradients to the parameters', with the other processes if this is a share; returns its mean
        loss, (), without its graph.
        """

    def inference(self) -> AbstractContextManager[None]:
        """A context for prediction: no gradients, the engine's precision, and no weight may change."""

    def release(self) -> None:
        """Undo the engine's changes to the model, except to its weights."""

    def describe(self) -> dict[str, Any]:
        """Whatever may change the last bits of results, for the provenance record."""


class Plain:
    """The reference engine, for any device and type."""

    def __init__(self, model: MultitaskModel, compute: Compute) -> None:
        self.model, self.compute = model, compute
        self._optimizer: torch.optim.Optimizer | None = None
        self._clip_norm: float | None = None
        self._weights_of = weights_by("mean")
        self._tasks: TaskGradients | None = None

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        states: Tensor = self.model.encoder(stream, first_only)
        return states

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        self._optimizer = torch.optim.AdamW(parameter_groups(self.model, recipe), **ADAMW)
        self._follow(recipe)
        return self._optimizer

    def _follow(self, recipe: Recipe) -> None:
        """Take what else a step depends on from the recipe."""
        self._clip_norm = recipe.optimization.clip_norm
        self._weights_of = weights_by(recipe.aggregation)
        self._tasks = None

    def step(self, batch: Batch, loss_of: Loss, seed: int, step: int) -> Tensor:
        assert self._optimizer is not None, "call optimizer() first"
        self.model.reseed(seed, step, batch.share)
        loss = self.backward(batch.to(self.compute.device), loss_of)
        if loss.isfinite():
            self._optimizer.step()
        # None, not zero: a parameter without a gradient (another task's head) is not updated.
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def joint_step(
        self, batches: Sequence[Batch], losses: Mapping[str, Loss], seed: int, step: int
    ) -> Sequence[Tensor]:
        assert self._optimizer is not None, "call optimizer() first"
        self.model.reseed(seed, step, batches[0].share)
        if self._tasks is None:
            self._tasks = TaskGradients(self.model, len(batches))
        found, tasks = [], self._tasks
        for row, batch in enumerate(batches):
            self.model.encoder.noise.share = batch.share
            found.append(self.gradients(batch.to(self.compute.device), losses[batch.task]))
            tasks.take(row)
        if torch.stack(found).isfinite().all():
            gramian = tasks.gramian()
            if not gramian.isfinite().all():
                raise MtbertError(
                    f"step {step}: a gradient is NaN or infinite; lower this run's learning rates, or set "
                    "compute.precision: fp32"
                )
            with seeded(seed, step):  # PCGrad goes through the tasks in random order
                tasks.give(self._weights_of(gramian))
            if self._clip_norm is not None:
                clip(self.model.parameters(), self._clip_norm)
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return found

    def backward(self, batch: Batch, loss_of: Loss) -> Tensor:
        """As `gradients`, and clip them."""
        loss = self.gradients(batch, loss_of)
        if self._clip_norm is not None:
            clip(self.model.parameters(), self._clip_norm)
        return loss

    def gradients(self, batch: Batch, loss_of: Loss) -> Tensor:
        with self.compute.autocast():
            scores = self.model(batch)
        assert batch.labels is not None, "training splits are labelled"
        loss = loss_of(scores, batch.labels)
        if batch.share is not None:
            loss = batch.share.weight * loss
        loss.backward()
        return loss.detach() if batch.share is None else summed(self.model.parameters(), loss.detach())

    @contextmanager
    def inference(self) -> Iterator[None]:
        with torch.inference_mode(), self.compute.autocast():
            yield

    def release(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {}


def clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale the gradients, fp32 or bf16, so that their norm, of all together, is at most `largest`; no wait for the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]).norm()
    scale = (largest / norm).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale)


def parameter_groups(model: MultitaskModel, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimizer's parameter groups by learning rate, of the parameters that train."""
    own, special = model.adapter_rates or {}, recipe.optimization
    adapter_rate = recipe.learning_rate if recipe.adapter_learning_rate is None else recipe.adapter_learning_rate
    head_rate = special.head_learning_rate
    rate_of_part = {
        "heads": head_rate,
        "pair_layer": head_rate,
        "uncertainty": recipe.uncertainty_learning_rate,
    }
    rates: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = rate_of_part.get(name.partition(".")[0])
            if rate is None:
                rate = adapter_rate * own[name] if name in own else recipe.learning_rate
            rate *= special.layer_decay ** depth_below_heads(name, model.encoder.config.layers)
            rates.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in rates.items()]


def depth_below_heads(name: str, layers: int) -> int:
    """How many layers a parameter lies below the heads: 1 for the last layer, L + 1 for embeddings, and 0 for heads, pooler and what an
    adapter shares among layers.
    """
    part, *rest = name.removeprefix("encoder.").split(".")
    return layers + 1 if part == "embeddings" else layers - int(rest[0]) if part == "layers" else 0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the rates that the optimizer was made with by `factor`."""
    for group in optimizer.param_groups:
        if "initial_lr" not in group:  # reading a rate from the GPU waits for it, so that this is done once
            group["initial_lr"] = float(group["lr"])
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):  # CUDA graphs read the rate from memory
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
