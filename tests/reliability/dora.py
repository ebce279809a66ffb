"""Figure 13: DoRA starts equal to its base layer, merging keeps its outputs, and training never changes the base weights."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.data.batches import make_batch
from mtbert.engines import engine_for, kernels
from mtbert.model.multitask import MultitaskModel
from mtbert.peft import convert
from mtbert.peft.convert import merge
from mtbert.peft.dora import DoraLinear
from mtbert.peft.registry import Dora
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain
from mtbert.training.recipe import Recipe
from tests.reliability.trial import Tally
from tests.tiny import NARROW, WRAPPER, adapt, tiny_model, tiny_split

TASKS = ("sst", "quora", "sts")
START, MERGED = 1e-6, 1e-5
CPU = Compute(torch.device("cpu"), bf16=False)
Kinds = Callable[[MultitaskModel, Compute], Engine]


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Combinations of rank, alpha, dropout and what trains, each with the same checks."""
    tally = Tally(13, "DoRA's identities", "init ≤ 1e-6, merge ≤ 1e-5, merge twice and base weights exact", seed)
    settings: list[dict[str, Any]] = [
        {"rank": rank, "alpha": alpha, "dropout": dropout, "train_rest": rest, "exact_norm": exact}
        for rank in ((4,) if quick else (1, 2, 4, 16))
        for alpha in (1.0, 8.0)
        for dropout in (0.0, 0.2)
        for rest in (True, False)
        for exact in (True, False)
    ]
    kinds: dict[str, Kinds] = {"fast": engine_for, "plain": Plain}
    for name, kind in kinds.items():
        for n, chosen in enumerate(settings):
            for what, ok in _checks(kind, seed + n, **chosen):
                tally.trial(ok, f"{chosen}, {name}: {what}")
    for bug, change in PLANTED:
        with change:
            outcomes = [ok for _, ok in _checks(Plain, seed, 4, 8.0, 0.0, True, True)]
        tally.control(not all(outcomes), bug)
    engines = "plain torch and the fast engine" if kernels()[0] else kernels()[1]
    tally.note = f"{len(settings)} settings, {engines}"
    return [tally]


def _checks(
    kind: Kinds, seed: int, rank: int, alpha: float, dropout: float, train_rest: bool, exact_norm: bool
) -> Iterator[tuple[str, bool]]:
    model = tiny_model(seed=seed, config=NARROW)
    kind(model, CPU)
    plain = _outputs(model)
    settings: dict[str, Any] = {"rank": rank, "alpha": alpha, "dropout": dropout, "train_rest": train_rest}
    adapt(model, "dora", **settings, norm_gradient="exact" if exact_norm else "detached", seed=seed)
    engine = kind(model, CPU)
    difference = _apart(_outputs(model), plain)
    yield f"start differs from the base by {difference:.2g}", difference <= START

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, DoraLinear)}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    moved = _train(engine, seed)
    yield "the layers did not learn", moved
    same = all(
        torch.equal(layer.weight.view(torch.int32), before[name].view(torch.int32)) for name, layer in layers.items()
    )
    yield "training changed base weights", same

    adapted = _outputs(model)
    merge(model)
    difference = _apart(_outputs(model), adapted)
    yield f"merged differs by {difference:.2g}", difference <= MERGED
    yield "an adapter is left after merging", not any(isinstance(layer, DoraLinear) for layer in model.modules())
    once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merge(model)
    twice = model.state_dict()
    yield "merging twice changed something", all(torch.equal(tensor, twice[name]) for name, tensor in once.items())


def _train(engine: Engine, seed: int) -> bool:
    """Train some steps of each task; whether every adapter changed."""
    model = engine.model
    engine.optimizer(Recipe("round_robin", 6, epochs=1, batch_size=8, learning_rate=0.01))
    before = {
        name: layer.lora_b.detach().clone() for name, layer in model.named_modules() if isinstance(layer, DoraLinear)
    }
    model.train()
    for step in range(6):
        task = TASKS[step % 3]
        split = tiny_split(task, 8, seed)
        batch = make_batch(task, split, np.arange(8), model.views(task), WRAPPER)
        engine.step(batch, lambda scores, _labels: scores.square().mean(), seed, step)
    model.eval()
    layers = dict(model.named_modules())
    return all(not torch.equal(layers[name].lora_b, old) for name, old in before.items())


def _outputs(model: MultitaskModel) -> dict[str, Tensor]:
    model.eval()
    with torch.no_grad():
        return {
            task: model(make_batch(task, tiny_split(task, 16), np.arange(16), model.views(task), WRAPPER))
            for task in TASKS
        }


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative for scores above 1."""
    return max(float(((one[task] - other[task]).abs() / other[task].abs().clamp_min(1)).max()) for task in TASKS)


class _NotZero(DoraLinear):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        nn.init.normal_(self.lora_b, std=1e-3)


class _Drifting(DoraLinear):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.weight.data.add_(1e-4)
        return super().forward(x)


def _merged_without(part: str) -> Any:
    def merged_weight(self: DoraLinear) -> Tensor:
        adapted = self.weight + (1.0 if part == "scale" else self.scale) * self.lora_b @ self.lora_a
        return adapted if part == "magnitude" else (self.magnitude / adapted.norm(dim=1))[:, None] * adapted

    return merged_weight


def _once_more(model: MultitaskModel) -> None:
    convert.merge(model)
    with torch.no_grad():
        model.encoder.embeddings.norm.weight.add_(1e-7)


PLANTED: list[tuple[str, Any]] = [
    ("B does not start at zero", patch.object(Dora, "layer", lambda _: _NotZero)),
    ("base weights drift in training", patch.object(Dora, "layer", lambda _: _Drifting)),
    ("merged without the magnitude", patch.object(DoraLinear, "merged_weight", _merged_without("magnitude"))),
    ("merged without the scale", patch.object(DoraLinear, "merged_weight", _merged_without("scale"))),
    ("merging changes weights each time", patch(f"{__name__}.merge", _once_more)),
]
