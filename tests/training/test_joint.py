"""A step with a batch of every task: its gradient by each aggregation, and resuming. Conflicts between the tasks, measured."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.data.batches import Batch, make_batch
from mtbert.engines import engine_for, kernels
from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.training import engine as engines
from mtbert.training.aggregation import AGGREGATIONS, weights_by
from mtbert.training.conflicts import layer_of, measure_conflicts
from mtbert.training.engine import Plain
from mtbert.training.joint import shared_parameters
from mtbert.training.optimization import PAPER
from mtbert.training.recipe import Recipe
from tests.tiny import WRAPPER, adapt, tiny_model, tiny_split
from tests.training.test_loop import CPU, Bench, at, bench, infinite_gradient, same
from tests.training.trainer import LOSSES

__all__ = ["bench"]  # a fixture

ENGINES = {"plain": Plain, **({"fast": engine_for} if kernels()[0] else {})}
needs_torchjd = pytest.mark.skipif(find_spec("torchjd") is None, reason="torchjd is not installed")
BY_TORCHJD = [pytest.param(name, marks=needs_torchjd) for name in AGGREGATIONS if name != "mean"]
TASKS = ("sst", "quora", "sts")


def a_batch(model: MultitaskModel, task: str, rows: int = 4) -> Batch:
    return make_batch(task, tiny_split(task, rows), np.arange(rows), model.views(task), WRAPPER)


def step_gradients(
    model: MultitaskModel,
    aggregation: str,
    tasks: Sequence[str] = TASKS,
    engine: Callable[..., Any] = Plain,
    **recipe: Any,
) -> dict[str, Tensor]:
    """The gradients that the optimizer sees in a joint step on a batch of each task, without dropout."""
    trained = engine(model.eval(), CPU)
    optimizer = trained.optimizer(Recipe("joint", "depletion", 1, 4, 0.01, aggregation=aggregation, **recipe))
    seen: dict[str, Tensor] = {}

    def record() -> None:
        seen.update({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})

    optimizer.step = record
    trained.joint_step([a_batch(model, task) for task in tasks], LOSSES, 11, 1)
    return seen


def task_gradient(model: MultitaskModel, task: str) -> dict[str, Tensor]:
    """The gradient of a task's loss, by autograd alone."""
    batch = a_batch(model, task)
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    loss = LOSSES[task](model(batch), batch.labels)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def jacobian(model: MultitaskModel, tasks: Sequence[str] = TASKS) -> Tensor:
    """A row for each task's gradient, of the shared parameters."""
    names = list(shared_parameters(model))
    return torch.stack(
        [
            torch.cat([gradient[name].flatten() for name in names])
            for gradient in map(partial(task_gradient, model), tasks)
        ]
    )


def shared_part(model: MultitaskModel, gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in shared_parameters(model)])


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_mean_is_the_gradient_of_the_mean_of_the_losses(engine: Any) -> None:
    model = tiny_model()
    batches = [a_batch(model, task) for task in TASKS]
    loss: Any = sum(LOSSES[batch.task](model.eval()(batch), batch.labels) for batch in batches) / 3
    expected = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )
    found = step_gradients(model, "mean", engine=engine)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("aggregation", BY_TORCHJD)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_the_encoder_gets_torchjd_s_aggregation_and_a_head_its_task_s_gradient(engine: Any, aggregation: str) -> None:
    from torchjd.aggregation import AlignedMTL, PCGrad, UPGrad

    model = tiny_model()
    rows = jacobian(model.eval())
    assert (rows @ rows.T).min() < 0, "two tasks conflict"
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([11, 1]).generate_state(1)[0]))  # PCGrad's order
        expected = {"pcgrad": PCGrad, "aligned_mtl": AlignedMTL, "upgrad": UPGrad}[aggregation]()(rows)
    found = step_gradients(model, aggregation, engine=engine)
    scale = 3 if aggregation == "pcgrad" else 1  # torchjd's is a sum
    torch.testing.assert_close(scale * shared_part(model, found), expected, rtol=1e-3, atol=1e-5)
    own = task_gradient(model, "sts")["heads.sts.linear.weight"]
    torch.testing.assert_close(3 * found["heads.sts.linear.weight"], own, rtol=1e-3, atol=1e-5)


@needs_torchjd
def test_pcgrad_of_two_tasks_is_the_paper_s_formula() -> None:
    model = tiny_model().double()
    one, other = jacobian(model.eval(), ("sst", "quora"))
    assert one @ other < 0
    expected = (one - (one @ other) / (other @ other) * other + other - (one @ other) / (one @ one) * one) / 2
    torch.testing.assert_close(shared_part(model, step_gradients(model, "pcgrad", ("sst", "quora"))), expected)


@needs_torchjd
def test_a_task_s_own_part_of_the_encoder_is_no_part_of_the_conflicts() -> None:
    from torchjd.aggregation import UPGrad

    model = adapt(tiny_model(), "mtlora", train_rest=False)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    rows = jacobian(model.eval())
    assert (rows @ rows.T).min() < 0 and not [name for name in shared_parameters(model) if ".tasks." in name]
    found = step_gradients(model, "upgrad")
    torch.testing.assert_close(shared_part(model, found), UPGrad()(rows), rtol=1e-3, atol=1e-5)
    own = {name: gradient for name, gradient in task_gradient(model, "sts").items() if ".tasks.sts." in name}
    assert own
    for name, gradient in own.items():
        torch.testing.assert_close(3 * found[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("aggregation", [pytest.param("mean"), *BY_TORCHJD])
def test_tasks_that_do_not_conflict_are_averaged(aggregation: str) -> None:
    if aggregation == "aligned_mtl":
        gramian = torch.eye(3, dtype=torch.float64)
    else:
        gramian = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights_by(aggregation)(gramian), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(MtbertError, match=r"aggregation: upgrad needs torchjd .*pip install 'mtbert\[multitask\]'"):
        weights_by("upgrad")


def test_clipping_is_of_the_aggregated_gradient() -> None:
    whole = step_gradients(tiny_model(), "mean")
    clipped = step_gradients(tiny_model(), "mean", optimization=PAPER.model_copy(update={"clip_norm": 0.5}))
    norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    for name, gradient in clipped.items():
        torch.testing.assert_close(gradient, whole[name] * 0.5 / norm)


def test_a_gradient_that_is_not_finite_stops_the_run(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match=r"^step 1: a gradient is NaN or infinite; lower this run's learning rates"):
        bench.run(tmp_path, sampler="joint", losses={**LOSSES, "sst": infinite_gradient})


# ---- runs


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
@pytest.mark.parametrize(
    ("aggregation", "method"), [("mean", "full"), pytest.param("pcgrad", "dora", marks=needs_torchjd)]
)
def test_interrupted_at_any_step_a_joint_run_ends_in_the_same_bits(
    bench: Bench, tmp_path: Path, engine: Any, aggregation: str, method: str
) -> None:
    run = partial(
        bench.run, engine=engine, method=method, sampler="joint", aggregation=aggregation, measure_conflicts=2
    )
    undisturbed = run(tmp_path / "undisturbed", checkpoint_seconds=1e9)
    steps = undisturbed.progress["history"][-1]["step"]
    assert steps == 4 and undisturbed.progress["batches"] == dict.fromkeys(TASKS, 4)
    assert {row[0] for row in undisturbed.progress["conflicts"]} == {0, 2}
    for k in range(1, steps + 1):
        assert same(run(tmp_path / str(k), at("step", k)), undisturbed), f"interrupted in step {k}"


@needs_torchjd
def test_the_comparison_notices_an_order_of_tasks_that_is_not_seeded(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(bench.run, sampler="joint", aggregation="pcgrad", epochs=4)
    monkeypatch.setattr(engines, "seeded", lambda *_: nullcontext())
    assert not same(run(tmp_path / "resumed", at("step", 3)), run(tmp_path / "undisturbed"))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
@pytest.mark.parametrize("method", ["full", "dora"])
def test_measuring_changes_nothing_of_the_run(bench: Bench, tmp_path: Path, engine: Any, method: str) -> None:
    run = partial(bench.run, engine=engine, method=method, sampler="square_root", epoch_end=4)
    measured = run(tmp_path / "measured", measure_conflicts=3)
    steps = [row[0] for row in measured.progress["conflicts"]]
    assert sorted(set(steps)) == [0, 3, 6] and len(set(map(steps.count, steps))) == 1
    measured.progress["conflicts"].clear()
    assert same(measured, run(tmp_path / "not"))


def test_cosines_are_those_of_autograd() -> None:
    model = tiny_model(dropout=0.0, head_dropout=0.0)
    data = {task: tiny_split(task, 4) for task in TASKS}
    rows = measure_conflicts(Plain(model, CPU), data, LOSSES, Recipe("joint", 1, 1, 4, 0.1), WRAPPER, 7)
    assert {row.step for row in rows} == {7} and len(rows) == 4 * 3
    gradients = {task: task_gradient(model, task) for task in TASKS}
    assert all(parameter.grad is None for parameter in model.parameters())
    for row in rows:
        first, second = (
            torch.cat(
                [
                    gradient.flatten()
                    for name, gradient in gradients[task].items()
                    if name.startswith("encoder.") and row.layer in (layer_of(name), "all")
                ]
            )
            for task in (row.first, row.second)
        )
        assert row.cosine == pytest.approx(float(torch.cosine_similarity(first, second, dim=0)), abs=1e-5)
        assert (row.first_norm, row.second_norm) == pytest.approx((float(first.norm()), float(second.norm())), rel=1e-4)
