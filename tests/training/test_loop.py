"""The training loop learns, stops at NaN, and resumes an interrupted run to the same bits."""

import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for, kernels
from mtbert.errors import MtbertError, Stopped
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.losses import binary_cross_entropy, cosine_embedding, cross_entropy, mean_squared_error
from mtbert.training import average, loop
from mtbert.training.checkpoint import load_checkpoint
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain
from mtbert.training.history import Progress, kept_epoch
from mtbert.training.log import Observer, Step
from mtbert.training.loop import Training
from mtbert.training.optimization import Optimization
from mtbert.training.recipe import EpochEnd, Recipe, TokenCount
from tests.tiny import adapt

SIZES = {"sst": 6, "quora": 9, "sts": 5}
LOSSES: dict[str, Any] = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
CPU = Compute(torch.device("cpu"), bf16=False)
RECIPE = Recipe("sequential", "depletion", epochs=2, batch_size=3, learning_rate=0.01, seed=11)
METHODS = ("full", "lora", "dora")


class Interruption(Exception):
    """Simulates a kill."""


class Outcome(NamedTuple):
    """A run's result: progress, weights, and the events of its observers, by step and by epoch.

    `seconds` stands apart, since it may differ between two attempts; `resumed` lists the resumptions.
    """

    progress: dict[str, Any]
    weights: dict[str, Tensor]
    steps: dict[int, Step]
    epochs: dict[int, dict[str, Any]]
    resumed: list[tuple[int, int]]
    seconds: float


def same(one: Outcome, other: Outcome) -> bool:
    """Equal to the last bit."""
    return one.progress == other.progress and one.steps == other.steps and one.epochs == other.epochs and all(
        torch.equal(value, other.weights[name]) for name, value in one.weights.items()
    )  # fmt: skip


class Watch(Observer):
    """Records its calls over all attempts, and dies once wherever `die(event, number)` is true."""

    def __init__(self, die: Callable[[str, int], bool] | None) -> None:
        self.die, self.died = die, set[tuple[str, int]]()
        self.steps: dict[int, Step] = {}
        self.batches: dict[tuple[int, str], Step] = {}  # a joint step has several
        self.epochs: dict[int, dict[str, Any]] = {}
        self.resumed: list[tuple[int, int]] = []

    def perhaps_die(self, event: str, number: int) -> None:
        if self.die and (event, number) not in self.died and self.die(event, number):
            self.died.add((event, number))
            raise Interruption

    def resume(self, done: int, steps: int) -> None:
        self.resumed.append((done, steps))

    def step(self, step: Step) -> None:
        assert self.batches.setdefault((step.step, step.task), step) == step, "a repeated step gives the same loss"
        self.steps[step.step] = step
        self.perhaps_die("step", step.step)

    def epoch(self, history: Sequence[dict[str, Any]]) -> None:
        row = history[-1]
        assert [one["epoch"] for one in history] == list(range(row["epoch"] + 1)), "also after a resumption"
        assert self.epochs.setdefault(row["epoch"], dict(row)) == row
        self.perhaps_die("epoch", row["epoch"])


class Bench:
    """Runs of a tiny configuration; each attempt has a new model, as in a new process."""

    def __init__(
        self, make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
    ) -> None:
        self.make_model, self.make_split, self.wrapper = make_model, make_split, wrapper

    def model(self, method: str = "full") -> MultitaskModel:
        model = self.make_model("mean", ["u", "v", "c"], ["|u-v|", "c"])
        if method != "full":
            adapt(model, method, dropout=0.1)
        return model

    def run(
        self,
        work: Path,
        die: Callable[[str, int], bool] | None = None,
        *,
        method: str = "full",
        engine: Callable[[MultitaskModel, Compute], Engine] = Plain,
        model: MultitaskModel | None = None,
        losses: dict[str, Any] = LOSSES,
        rows: int = 0,
        tasks: Sequence[str] = tuple(SIZES),
        checkpoint_seconds: float = 0.0,
        held_out: Callable[[float], float | None] | None = None,
        **recipe: Any,
    ) -> Outcome:
        """One run, restarted until it ends; an attempt dies wherever `die(event, number)` is true."""
        dev, watch, second = self.make_split("quora", 4, 1), Watch(die), Watch(None)

        def evaluate(model: MultitaskModel) -> dict[str, float | None]:
            watch.perhaps_die("evaluation", len(watch.epochs))
            score = float(raw_scores(model, "quora", dev, self.wrapper).sum())
            chosen_by = {} if held_out is None else {"held_out": held_out(score)}
            return {"dev_quora": score, "dev_sts": None, **chosen_by}

        while True:
            trained = (model or self.model(method)).eval()  # the loop itself turns training on
            np.random.seed(len(watch.died))
            torch.manual_seed(len(watch.died))
            try:
                progress = Training(
                    engine(trained, CPU),
                    {task: self.make_split(task, rows or SIZES[task]) for task in tasks},
                    losses,
                    replace(RECIPE, **recipe),
                    wrapper=self.wrapper,
                    evaluate=evaluate,
                    observers=(second, watch),
                    work=work,
                    checkpoint_seconds=checkpoint_seconds,
                ).run()
            except Interruption:
                continue
            assert trained.training
            assert (second.steps, second.epochs, second.resumed) == (watch.steps, watch.epochs, watch.resumed)
            found = asdict(progress)
            seconds = found.pop("seconds")
            return Outcome(found, trained.state_dict(), watch.steps, watch.epochs, watch.resumed, seconds)


@pytest.fixture
def bench(make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper) -> Bench:
    return Bench(make_model, make_split, wrapper)


@pytest.fixture(params=["plain", "fast"])
def engine(request: pytest.FixtureRequest) -> Callable[[MultitaskModel, Compute], Engine]:
    if request.param == "fast" and not kernels()[0]:
        pytest.skip(kernels()[1])
    return engine_for if request.param == "fast" else Plain


def at(*event: Any) -> Callable[[str, int], bool]:
    return lambda *found: found == event


@pytest.mark.parametrize(
    ("method", "sampler", "epoch_end"),
    [
        ("full", "sequential", "depletion"),
        ("full", "square_root", "depletion"),
        ("lora", "round_robin", "depletion"),
        ("lora", 0.25, 5),
        ("full", "annealed", TokenCount(tokens="one_pass")),
        ("dora", "proportional", "depletion"),
        ("dora", "balanced", "depletion"),
        ("houlsby", "round_robin", 3),
        ("pal", "round_robin", 3),
        ("mtlora", "round_robin", 3),
        ("pissa", "square_root", 3),  # with frozen parameters of its own
        ("vera", "square_root", 3),  # with a frozen pair that no file holds
    ],
)
def test_interrupted_at_any_step_a_run_ends_in_the_same_bits(
    bench: Bench, tmp_path: Path, engine: Any, method: str, sampler: str | float, epoch_end: EpochEnd
) -> None:
    run = partial(bench.run, engine=engine, method=method, sampler=sampler, epoch_end=epoch_end)
    undisturbed = run(tmp_path / "undisturbed", checkpoint_seconds=1e9)
    steps = undisturbed.progress["history"][-1]["step"]
    assert sorted(undisturbed.steps) == list(range(1, steps + 1)) and not undisturbed.resumed
    for k in range(1, steps + 1, 4):
        resumed = run(tmp_path / str(k), at("step", k))
        assert same(resumed, undisturbed), f"interrupted in step {k}"
        # The observer died before step k's own checkpoint; before the first one there is nothing to resume from.
        assert [done for done, _ in resumed.resumed] == [k - 1][: k - 1]
    resumed = run(tmp_path / "all", lambda event, _: event == "step")
    assert same(resumed, undisturbed), "interrupted in every step"
    assert [done for done, _ in resumed.resumed] == list(range(1, steps))


@pytest.mark.parametrize("method", ["full", "dora"])
def test_a_run_with_every_optimization_ends_in_the_same_bits(
    bench: Bench, tmp_path: Path, engine: Any, method: str
) -> None:
    special = Optimization(
        warmup=0.3, decay="cosine", layer_decay=0.9, head_learning_rate=0.02, clip_norm=0.5, average=0.9
    )
    run = partial(bench.run, engine=engine, method=method, sampler="square_root", epochs=3, epoch_end=3)
    run = partial(run, optimization=special, held_out=lambda score: math.sin(1e4 * score))
    undisturbed = run(tmp_path / "undisturbed", checkpoint_seconds=1e9)
    for event in [("step", k) for k in range(1, 10)] + [("epoch", k) for k in range(4)]:
        assert same(run(tmp_path / "_".join(map(str, event)), at(*event)), undisturbed), event


def test_the_weights_of_the_best_epoch_are_kept(bench: Bench, tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.9, 0.9, 0.3])
    chosen = bench.run(tmp_path / "chosen", epochs=4, held_out=lambda _: next(scores))
    two, four = bench.run(tmp_path / "two", epochs=2), bench.run(tmp_path / "four", epochs=4)
    assert all(torch.equal(value, two.weights[name]) for name, value in chosen.weights.items())
    assert chosen.steps == four.steps and any(
        not torch.equal(value, four.weights[name]) for name, value in chosen.weights.items()
    )
    assert kept_epoch(chosen.progress["history"]) == 2 and kept_epoch(four.progress["history"]) == 4


def test_a_task_named_like_an_attribute_of_torch_s_modules_keeps_its_best_epoch(bench: Bench, tmp_path: Path) -> None:
    model, scores = bench.model(), iter([0.1, 0.9, 0.3])
    model.heads._modules["type"] = torch.nn.Linear(2, 2)
    bench.run(tmp_path, model=model, epochs=2, held_out=lambda _: next(scores))


@pytest.mark.parametrize("event", ["epoch", "evaluation", "any"])
def test_interrupted_at_every_event(bench: Bench, tmp_path: Path, event: str) -> None:
    """After each step, epoch and evaluation."""
    undisturbed = bench.run(tmp_path / "undisturbed", sampler="square_root", epochs=3)
    deaths: list[tuple[str, int]] = []

    def die(where: str, number: int) -> bool:
        if event in (where, "any"):
            deaths.append((where, number))
        return event in (where, "any")

    assert same(bench.run(tmp_path / "resumed", die, sampler="square_root", epochs=3), undisturbed)
    assert len(deaths) >= (4 if event != "any" else 8 + len(undisturbed.steps))


def test_checkpoints_change_nothing(bench: Bench, tmp_path: Path) -> None:
    never = bench.run(tmp_path / "never", checkpoint_seconds=1e9)
    assert same(never, bench.run(tmp_path / "always"))
    assert same(never, bench.run(tmp_path / "repeated", at("step", 9), checkpoint_seconds=1e9))
    assert not list((tmp_path / "never").glob("*"))
    assert len(list((tmp_path / "always").glob("*.safetensors"))) == 1


def test_a_checkpoint_holds_all_of_the_progress(bench: Bench, tmp_path: Path) -> None:
    model = bench.model()
    with pytest.raises(KeyboardInterrupt):
        bench.run(tmp_path, lambda event, n: (event, n) == ("step", 9) and _raise(KeyboardInterrupt()))
    found = load_checkpoint(tmp_path, model, Plain(model, CPU).optimizer(RECIPE))
    assert found is not None
    step, progress, _ = found
    assert step == 8 and progress.keys() == {field.name for field in fields(Progress)}
    assert sum(progress["batches"].values()) == 8 and progress["loss_sum"] > 0 and len(progress["log"]) == 64


def _raise(error: BaseException) -> bool:
    raise error


def test_seconds_are_summed_over_processes(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that ticks at each reading and jumps when a process dies: time between processes does not count."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    def die(event: str, number: int) -> bool:
        if (event, number) == ("step", 9):
            now[0] += 1e6
        return (event, number) == ("step", 9)

    monkeypatch.setattr(loop.time, "monotonic", tick)
    undisturbed = bench.run(tmp_path / "undisturbed")
    assert undisturbed.seconds > 14
    assert bench.run(tmp_path / "resumed", die).seconds == pytest.approx(undisturbed.seconds, abs=3)


def _without_optimizer(real: Callable[..., Any], folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Any:
    found = real(folder, model, optimizer)
    optimizer.state.clear()
    return found


def _without(key: str, empty: Any, real: Callable[..., Any], *arguments: Any) -> Any:
    found = real(*arguments)
    return found and (found[0], {**found[1], key: empty(found[1][key]) if callable(empty) else empty}, found[2])


def _one_step_late(real: Callable[..., Any], *arguments: Any) -> Any:
    found = real(*arguments)
    return found and (found[0] + 1, *found[1:])


def _weights_forgotten(real: Callable[..., Any], folder: Path, model: MultitaskModel, optimizer: Any) -> Any:
    before = [parameter.detach().clone() for parameter in model.parameters()]
    found = real(folder, model, optimizer)
    for parameter, old in zip(model.parameters(), before, strict=True):
        parameter.data.copy_(old)
    return found


PLANTED = {
    "optimizer forgotten": _without_optimizer,
    "weights forgotten": _weights_forgotten,
    "a step skipped": _one_step_late,
    "sum of losses forgotten": partial(_without, "loss_sum", 0.0),
    "tokens forgotten": partial(_without, "tokens", dict.fromkeys(SIZES, 0)),
    "batches forgotten": partial(_without, "batches", dict.fromkeys(SIZES, 0)),
    "history cut": partial(_without, "history", lambda rows: rows[:-1]),
    "checksum of the log forgotten": partial(_without, "log", ""),
}


@pytest.mark.parametrize("bug", [*PLANTED, "masks from elsewhere"])
def test_the_comparison_notices_a_bug_in_resuming(
    bench: Bench, tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bug in PLANTED:
        monkeypatch.setattr(loop, "load_checkpoint", partial(PLANTED[bug], loop.load_checkpoint))
    else:
        monkeypatch.setattr(MultitaskModel, "reseed", lambda *_: None)
    undisturbed = bench.run(tmp_path / "undisturbed")
    try:
        resumed = bench.run(tmp_path / "resumed", at("step", 12))
    except (AssertionError, ZeroDivisionError):
        return  # a repeated step or epoch already differed
    assert not same(resumed, undisturbed)


def _average_forgotten(real: Callable[..., Any], folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Any:
    found = real(folder, model, optimizer)
    for state in optimizer.state.values():
        state.pop("average", None)
    return found


def _best_forgotten(real: Callable[..., Any], *arguments: Any) -> Any:
    found = real(*arguments)
    return found and (*found[:2], {})


@pytest.mark.parametrize("bug", [_average_forgotten, _best_forgotten])
def test_the_comparison_notices_forgotten_weights(
    bench: Bench, tmp_path: Path, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str, die: Callable[[str, int], bool] | None = None) -> Outcome:
        scores = iter([0.1, 0.9, 0.3])  # one for each epoch: no evaluation is repeated
        if bug is _best_forgotten:
            return bench.run(tmp_path / folder, die, held_out=lambda _: next(scores))
        return bench.run(tmp_path / folder, die, optimization=Optimization(average=0.9))

    undisturbed = run("undisturbed")
    assert same(run("resumed", at("step", 12)), undisturbed)
    monkeypatch.setattr(loop, "load_checkpoint", partial(bug, loop.load_checkpoint))
    assert not same(run("damaged", at("step", 12)), undisturbed)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_signal_while_weights_are_averages_leaves_no_mixture(
    bench: Bench, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights become their averages and back around each evaluation; the signal comes before one of these four changes."""
    run = {"optimization": Optimization(average=0.9)}
    undisturbed = bench.run(tmp_path / "undisturbed", **run)
    real, calls = average._set, iter(range(1, 1000))

    def interrupted(weights: list[Tensor], values: list[Tensor]) -> None:
        half = len(weights) // 2
        real(weights[:half], values[:half])
        if next(calls) == number + 2:  # the first two are around epoch 0, when there is no average yet
            os.kill(os.getpid(), signal.SIGTERM)
        real(weights[half:], values[half:])

    monkeypatch.setattr(average, "_set", interrupted)
    with pytest.raises(Stopped):
        bench.run(tmp_path / "resumed", **run)
    monkeypatch.undo()
    resumed = bench.run(tmp_path / "resumed", **run)
    assert resumed.progress == undisturbed.progress
    assert all(torch.equal(value, undisturbed.weights[name]) for name, value in resumed.weights.items())


def test_another_seed_is_another_run(bench: Bench, tmp_path: Path) -> None:
    assert not same(bench.run(tmp_path / "a"), bench.run(tmp_path / "b", seed=12))


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_each_step_draws_its_own_masks(bench: Bench, tmp_path: Path, dropout: float) -> None:
    """The same example in every step without learning, so only the masks can change the loss."""
    model = bench.make_model(dropout=dropout, head_dropout=dropout)
    recipe: dict[str, Any] = {"epoch_end": 6, "epochs": 1, "sampler": "round_robin", "learning_rate": 1e-30}
    outcome = bench.run(tmp_path, model=model, rows=1, **recipe)
    assert len({(step.task, step.loss) for step in outcome.steps.values()}) == (6 if dropout else 3)


def test_what_a_run_reports(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(tmp_path, sampler="sequential")
    progress = outcome.progress
    assert progress["batches"] == {"sst": 4, "quora": 6, "sts": 4}
    # quora needs u, v and c (each sentence twice, seven special tokens), and so does sts; sst needs u alone.
    data = {task: bench.make_split(task, size) for task, size in SIZES.items()}
    pieces = {task: len(split.ids1) + len([] if split.ids2 is None else split.ids2) for task, split in data.items()}
    one = {"sst": pieces["sst"] + 2 * 6, "quora": 2 * pieces["quora"] + 7 * 9, "sts": 2 * pieces["sts"] + 7 * 5}
    tokens = sum(one.values())
    assert progress["tokens"] == {task: 2 * count for task, count in one.items()}
    assert sum(step.tokens for step in outcome.steps.values()) == 2 * tokens
    rows = [(row["epoch"], row["step"], row["tokens"]) for row in progress["history"]]
    assert rows == [(0, 0, 0), (1, 7, tokens), (2, 14, 2 * tokens)]
    assert progress["history"][0]["train_loss"] is None
    for epoch, first in ((1, 1), (2, 8)):
        losses = [outcome.steps[step].loss for step in range(first, first + 7)]
        assert progress["history"][epoch]["train_loss"] == pytest.approx(sum(losses) / 7)
    assert [outcome.steps[step].task for step in range(1, 8)] == ["sst"] * 2 + ["quora"] * 3 + ["sts"] * 2
    assert all(step.steps == 14 and step.epoch == 1 + (step.step > 7) for step in outcome.steps.values())
    assert list(outcome.epochs.values()) == progress["history"]


def test_one_step_is_one_step_of_adamw(bench: Bench, tmp_path: Path, engine: Any) -> None:
    """AdamW's first update is the gradient's sign times the learning rate."""
    model = bench.make_model(dropout=0.0, head_dropout=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    outcome = bench.run(tmp_path, model=model, engine=engine, epoch_end=1, epochs=1, learning_rate=0.001)
    moves = torch.cat([(outcome.weights[name] - old).abs().flatten() for name, old in before.items()])
    moved = moves[moves > 0]
    assert len(outcome.steps) == 1 and len(moved) > 100
    assert float(moved.max()) <= 0.001 * (1 + 1e-3)
    assert float(moved.median()) == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("unread", [1, 100], ids=["losses read at once", "losses read late"])
def test_a_loss_that_is_not_finite_updates_nothing(
    bench: Bench, tmp_path: Path, engine: Any, bad: float, unread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If losses are read late, as on a GPU, later steps are taken first; the bad step changes nothing in either case."""
    monkeypatch.setitem(loop.UNREAD, "cpu", unread)
    model, calls = bench.model(), list[dict[str, Tensor]]()

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        calls.append({name: value.clone() for name, value in model.state_dict().items()})
        return cross_entropy(scores, labels) * (bad if len(calls) == 2 else 1)

    with pytest.raises(MtbertError, match=rf"step 2 \(sst\): the loss is {bad}; lower this run's learning rates"):
        bench.run(
            tmp_path, model=model, engine=engine, losses={"sst": loss}, tasks=["sst"], rows=9, checkpoint_seconds=1e9
        )
    assert len(calls) == (2 if unread == 1 else 3)
    after = model.state_dict() if unread == 1 else calls[2]
    assert all(torch.equal(value, calls[1][name]) for name, value in after.items())
    assert not torch.equal(calls[0]["heads.sst.linear.bias"], calls[1]["heads.sst.linear.bias"])
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("unread", [2, 3, 100])
def test_losses_read_late_change_nothing(
    bench: Bench, tmp_path: Path, unread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = bench.run(tmp_path / "at once", checkpoint_seconds=1e9)
    monkeypatch.setitem(loop.UNREAD, "cpu", unread)
    late = bench.run(tmp_path / "late", checkpoint_seconds=1e9)
    assert same(late, at_once) and list(late.steps) == sorted(late.steps)


def petabyte() -> Exception:
    """torch's own out-of-memory error."""
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    pytest.fail("a petabyte could be allocated")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("Tried to allocate 9 GiB"), "9 GiB"),
        (petabyte(), "can't allocate memory"),
        (MemoryError("numpy"), "numpy"),
        (RuntimeError("shapes differ"), None),
    ],
)
@pytest.mark.parametrize("where", ["loss", "update"])
def test_an_out_of_memory_error_names_the_batch_size(
    bench: Bench, tmp_path: Path, error: Exception, message: str | None, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other errors are passed on unchanged."""

    def fail(*_: Any) -> Tensor:
        raise error

    if where == "update":
        monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    expected = rf"step 1 \(sst\): out of memory on cpu; lower this run's batch_size .*{message}"
    with pytest.raises(MtbertError if message else RuntimeError, match=expected if message else "^shapes differ"):
        bench.run(tmp_path, losses={**LOSSES, "sst": fail if where == "loss" else cross_entropy})


def infinite_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """A finite loss with an infinite gradient."""
    loss = cross_entropy(scores, labels)
    return loss + (loss - loss.detach()).sqrt()


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_weight_that_is_not_finite_stops_the_run_before_a_checkpoint(
    bench: Bench, tmp_path: Path, checkpoint_seconds: float
) -> None:
    """Each epoch ends with one sst step, so no later loss of the epoch could show it."""
    run = partial(
        bench.run, tmp_path, losses={**LOSSES, "sst": infinite_gradient}, checkpoint_seconds=checkpoint_seconds
    )
    with pytest.raises(MtbertError, match=r"step 1: \S+ holds NaN or infinity; lower this run's learning rates"):
        run(sampler="round_robin", epoch_end=1, epochs=1)
    with pytest.raises(MtbertError, match=r"holds NaN or infinity|the loss is nan"):
        run()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("method", [*METHODS, "cosine"])
def test_learnable_data_is_learnt(bench: Bench, tmp_path: Path, method: str) -> None:
    """By full fine-tuning, by adapters, and by the cosine embedding loss, which has no head to train."""
    if method == "cosine":
        model = bench.make_model("mean", None, None, dropout=0.0)
        losses: dict[str, Any] = {**LOSSES, "sts": partial(cosine_embedding, margin=0.0, threshold=2.5)}
    else:
        model, losses = bench.model(method), LOSSES
    recipe: dict[str, Any] = {"sampler": "round_robin", "epochs": 12, "batch_size": 8, "learning_rate": 0.03}
    outcome = bench.run(tmp_path, model=model, losses=losses, rows=24, checkpoint_seconds=1e9, **recipe)

    def mean_loss(epoch: int) -> float:
        of = ("sts",) if method == "cosine" else tuple(SIZES)
        return float(np.mean([one.loss for one in outcome.steps.values() if one.epoch == epoch and one.task in of]))

    assert mean_loss(12) < (0.8 if method == "cosine" else 0.6) * mean_loss(1)


def test_training_one_task_does_not_change_the_other_heads(bench: Bench, tmp_path: Path, engine: Any) -> None:
    model = bench.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = bench.run(tmp_path, model=model, engine=engine, tasks=["sst"], rows=7, epochs=1, batch_size=4)
    assert outcome.progress["batches"] == {"sst": 2}
    moved = {name for name, value in outcome.weights.items() if not torch.equal(value, before[name])}
    assert "heads.sst.linear.weight" in moved
    assert not any(name.startswith(("heads.quora", "heads.sts")) for name in moved)


def test_an_adapter_s_parameters_have_their_own_learning_rate(bench: Bench, tmp_path: Path, engine: Any) -> None:
    model = bench.model("dora")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rates: dict[str, Any] = {"learning_rate": 1e-30, "adapter_learning_rate": 0.01}
    outcome = bench.run(tmp_path, model=model, engine=engine, epoch_end=3, epochs=1, **rates)
    moved = {name for name, value in outcome.weights.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.endswith(("lora_a", "lora_b", "magnitude"))}
