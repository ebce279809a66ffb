"""The training loop: learns, refuses NaN, and resumes so that an interrupted run ends as an undisturbed one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mtbert.training.adamw import AdamW
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_dora
from mtbert.tasks.losses import binary_cross_entropy, cosine_embedding, cross_entropy, mean_squared_error
from mtbert.training import loop
from mtbert.training.compute import Compute
from mtbert.training.log import Step
from mtbert.training.loop import train

SIZES = {"sst": 6, "quora": 9, "sts": 5}
LOSSES = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
CPU = Compute(torch.device("cpu"), bf16=False)
SAMPLERS = ["sequential", "round_robin", "proportional", "square_root", "balanced"]
DORA: dict[str, Any] = {"rank": 2, "alpha": 2.0, "dropout": 0.1, "exact_norm": True, "seed": 3}


class Interruption(Exception):
    """Stands for a kill."""


class Outcome(NamedTuple):
    """All that a run leaves: what `train` returned, the weights, and what its observers saw, by step and by epoch.

    `seconds` stands apart: it alone may differ between two tries.
    """

    result: dict[str, Any]
    weights: dict[str, Tensor]
    steps: dict[int, Step]
    epochs: dict[int, dict[str, Any]]
    seconds: float


def same(one: Outcome, other: Outcome) -> bool:
    """Equal to the last bit."""
    return (
        one.result == other.result
        and one.steps == other.steps
        and one.epochs == other.epochs
        and one.weights.keys() == other.weights.keys()
        and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    )


class Bench:
    """Runs of a tiny configuration, each attempt with a model built anew, as in a new process."""

    def __init__(
        self, make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
    ) -> None:
        self.make_model, self.make_split, self.wrapper = make_model, make_split, wrapper

    def model(self, adapter: bool) -> MultitaskModel:
        model = self.make_model("mean", ["u", "v", "c"], ["|u-v|", "c"])
        if adapter:
            add_dora(model, **DORA, train_rest=True)
        return model

    def run(
        self,
        work: Path,
        die: Callable[[str, int], bool] | None = None,
        *,
        adapter: bool = False,
        sampler: str | float = "sequential",
        checkpoint_seconds: float = 0.0,
        epoch_end: str | int = "depletion",
        model: MultitaskModel | None = None,
        losses: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Outcome:
        """One run, started again until it ends; `die(event, number)` says where an attempt breaks off, each once."""
        data = {task: self.make_split(task, settings.get("rows", size)) for task, size in SIZES.items()}
        dev = self.make_split("quora", 4, 1)
        steps: dict[int, Step] = {}
        epochs: dict[int, dict[str, Any]] = {}
        died: set[tuple[str, int]] = set()

        def perhaps_die(event: str, number: int) -> None:
            if die and (event, number) not in died and die(event, number):
                died.add((event, number))
                raise Interruption

        def on_step(step: Step) -> None:
            assert steps.setdefault(step.step, step) == step, "a repeated step gives the same loss"
            perhaps_die("step", step.step)

        def on_epoch(row: dict[str, Any]) -> None:
            assert epochs.setdefault(row["epoch"], dict(row)) == row
            perhaps_die("epoch", row["epoch"])

        def evaluate(model: MultitaskModel) -> dict[str, float | None]:
            perhaps_die("evaluation", len(epochs))
            return {"dev_quora": float(raw_scores(model, "quora", dev, self.wrapper).sum()), "dev_sts": None}

        while True:
            trained = (model or self.model(adapter)).eval()  # training is the loop's own business
            np.random.seed(len(died))
            torch.manual_seed(len(died))
            try:
                result = train(
                    trained,
                    data,
                    losses or LOSSES,
                    wrapper=self.wrapper,
                    compute=CPU,
                    sampler=sampler,
                    epoch_end=epoch_end,
                    epochs=settings.get("epochs", 2),
                    batch_size=settings.get("batch_size", 3),
                    learning_rate=settings.get("learning_rate", 0.01),
                    seed=settings.get("seed", 11),
                    evaluate=evaluate,
                    on_step=on_step,
                    on_epoch=on_epoch,
                    work=work,
                    checkpoint_seconds=checkpoint_seconds,
                )
            except Interruption:
                continue
            assert trained.training or settings.get("epochs") == 0
            seconds = result.pop("seconds")
            return Outcome(result, trained.state_dict(), steps, epochs, seconds)


@pytest.fixture
def bench(make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper) -> Bench:
    return Bench(make_model, make_split, wrapper)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "dora"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_at_any_step_a_run_ends_in_the_same_bits(
    bench: Bench, tmp_path: Path, sampler: str, adapter: bool
) -> None:
    undisturbed = bench.run(tmp_path / "undisturbed", sampler=sampler, adapter=adapter, checkpoint_seconds=1e9)
    steps = undisturbed.result["steps"]
    assert sorted(undisturbed.steps) == list(range(1, steps + 1))
    for k in range(1, steps + 1):
        resumed = bench.run(
            tmp_path / str(k),
            lambda event, number, k=k: (event, number) == ("step", k),
            sampler=sampler,
            adapter=adapter,
        )
        assert same(resumed, undisturbed), f"interrupted in step {k}"


@pytest.mark.parametrize("event", ["step", "epoch", "evaluation", "any"])
def test_interrupted_at_every_occasion(bench: Bench, tmp_path: Path, event: str) -> None:
    """An attempt after each step, epoch and evaluation."""
    undisturbed = bench.run(tmp_path / "undisturbed", sampler="square_root", epochs=3)
    deaths: list[tuple[str, int]] = []

    def die(where: str, number: int) -> bool:
        if event in (where, "any"):
            deaths.append((where, number))
            return True
        return False

    assert same(bench.run(tmp_path / "resumed", die, sampler="square_root", epochs=3), undisturbed)
    assert len(deaths) >= (undisturbed.result["steps"] if event == "step" else 4)


def test_a_fixed_number_of_steps_and_an_exponent_resume_too(bench: Bench, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sampler": 0.25, "epoch_end": 5, "epochs": 2}
    undisturbed = bench.run(tmp_path / "undisturbed", **settings)
    assert undisturbed.result["steps"] == 10
    assert same(bench.run(tmp_path / "resumed", lambda event, _: event == "step", **settings), undisturbed)


def test_checkpoints_change_nothing(bench: Bench, tmp_path: Path) -> None:
    assert same(bench.run(tmp_path / "never", checkpoint_seconds=1e9), bench.run(tmp_path / "always"))
    assert not list((tmp_path / "never").glob("*"))
    assert len(list((tmp_path / "always").glob("*.safetensors"))) == 1


def test_a_long_pause_between_checkpoints_repeats_steps_only(bench: Bench, tmp_path: Path) -> None:
    undisturbed = bench.run(tmp_path / "undisturbed")
    resumed = bench.run(tmp_path / "b", lambda event, n: (event, n) == ("step", 9), checkpoint_seconds=1e9)
    assert same(resumed, undisturbed)


def test_seconds_are_summed_over_processes(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks once a look, and jumps where a process dies: the time between processes is nobody's."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    def die(event: str, number: int) -> bool:
        if (event, number) == ("step", 9):
            now[0] += 1e6
            return True
        return False

    monkeypatch.setattr(loop.time, "monotonic", tick)
    undisturbed = bench.run(tmp_path / "undisturbed")
    resumed = bench.run(tmp_path / "resumed", die)
    assert undisturbed.seconds > 14
    assert undisturbed.seconds - 3 < resumed.seconds < undisturbed.seconds + 3


def _without_optimizer(real: Callable[..., Any], folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Any:
    found = real(folder, model, optimizer)
    optimizer.state.clear()
    return found


def _without(key: str, empty: Any, real: Callable[..., Any], *arguments: Any) -> Any:
    found = real(*arguments)
    if found:
        value = empty(found[1][key]) if callable(empty) else empty
        return found[0], {**found[1], key: value}
    return found


def _one_step_late(real: Callable[..., Any], *arguments: Any) -> Any:
    found = real(*arguments)
    return found and (found[0] + 1, found[1])


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
    "tokens forgotten": partial(_without, "tokens", 0),
    "batches forgotten": partial(_without, "batches", dict.fromkeys(SIZES, 0)),
    "history cut": partial(_without, "history", lambda rows: rows[:-1]),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_comparison_sees_a_bug_in_resuming(
    bench: Bench, tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = bench.run(tmp_path / "undisturbed")
    monkeypatch.setattr(loop, "load_checkpoint", partial(PLANTED[bug], loop.load_checkpoint))
    try:
        resumed = bench.run(tmp_path / "resumed", lambda event, number: (event, number) == ("step", 12))
    except (AssertionError, ZeroDivisionError):
        return  # a repeated step or epoch already differed
    assert not same(resumed, undisturbed)


def test_the_comparison_sees_masks_drawn_from_elsewhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MultitaskModel, "reseed", lambda *_: None)
    undisturbed = bench.run(tmp_path / "undisturbed")
    with pytest.raises(AssertionError, match="a repeated step gives the same loss"):
        bench.run(tmp_path / "resumed", lambda event, number: (event, number) == ("step", 5))
    assert undisturbed.result["steps"] == 14


def test_another_seed_is_another_run(bench: Bench, tmp_path: Path) -> None:
    assert not same(bench.run(tmp_path / "a"), bench.run(tmp_path / "b", seed=12))


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_each_step_draws_its_own_masks(bench: Bench, tmp_path: Path, dropout: float) -> None:
    """One example again and again, without learning: only the masks can change the loss."""
    model = bench.make_model(dropout=dropout, head_dropout=dropout)
    outcome = bench.run(
        tmp_path, model=model, epoch_end=6, epochs=1, rows=1, sampler="round_robin", learning_rate=1e-30
    )
    assert len({(step.task, step.loss) for step in outcome.steps.values()}) == (6 if dropout else 3)


def test_what_a_run_reports(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(tmp_path, sampler="sequential")
    result = outcome.result
    assert result["steps"] == 14
    assert result["batches"] == {"sst": 4, "quora": 6, "sts": 4}
    # Both pair tasks need u, v and c: each sentence twice, and seven special tokens; sst needs u alone.
    data = {task: bench.make_split(task, size) for task, size in SIZES.items()}
    pieces = {task: len(split.ids1) + len([] if split.ids2 is None else split.ids2) for task, split in data.items()}
    tokens = pieces["sst"] + 2 * 6 + 2 * (pieces["quora"] + pieces["sts"]) + 7 * (9 + 5)
    assert result["tokens"] == sum(step.tokens for step in outcome.steps.values()) == 2 * tokens
    assert [(row["epoch"], row["step"]) for row in result["history"]] == [(0, 0), (1, 7), (2, 14)]
    assert result["history"][0]["train_loss"] is None
    for epoch, first in ((1, 1), (2, 8)):
        losses = [outcome.steps[step].loss for step in range(first, first + 7)]
        assert result["history"][epoch]["train_loss"] == pytest.approx(sum(losses) / 7)
    assert [outcome.steps[step].task for step in range(1, 8)] == ["sst"] * 2 + ["quora"] * 3 + ["sts"] * 2
    assert all(step.steps == 14 and step.epoch == 1 + (step.step > 7) for step in outcome.steps.values())
    assert list(outcome.epochs.values()) == result["history"]


def test_one_step_is_one_step_of_adamw(bench: Bench, tmp_path: Path) -> None:
    """The first update by hand: the gradient's sign times the learning rate, as AdamW's first step is."""
    model = bench.make_model(dropout=0.0, head_dropout=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    outcome = bench.run(tmp_path, model=model, epoch_end=1, epochs=1, sampler="sequential", learning_rate=0.001)
    assert outcome.result["steps"] == 1
    moves = torch.cat([(outcome.weights[name] - old).abs().flatten() for name, old in before.items()])
    moved = moves[moves > 0]
    assert len(moved) > 100
    assert float(moved.max()) <= 0.001 * (1 + 1e-3)
    assert float(moved.median()) == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(bench: Bench, tmp_path: Path, bad: float) -> None:
    model = bench.model(adapter=False)
    calls = []

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        calls.append({name: value.clone() for name, value in model.state_dict().items()})
        return cross_entropy(scores, labels) * (bad if len(calls) == 2 else 1)

    with pytest.raises(MtbertError, match=rf"step 2 \(sst\): the loss is {bad}; lower this run's learning_rate"):
        bench.run(tmp_path, model=model, losses={**LOSSES, "sst": loss}, sampler="sequential")
    assert len(calls) == 2
    assert all(torch.equal(value, calls[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(calls[0]["heads.sst.linear.bias"], calls[1]["heads.sst.linear.bias"])


def unread(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """As on a GPU: losses are read after so many steps."""
    monkeypatch.setitem(loop.UNREAD, "cpu", steps)


@pytest.mark.parametrize("steps", [2, 3, 100])
def test_losses_read_late_change_nothing(
    bench: Bench, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = bench.run(tmp_path / "at once", checkpoint_seconds=1e9)
    unread(monkeypatch, steps)
    late = bench.run(tmp_path / "late", checkpoint_seconds=1e9)
    assert late.steps == at_once.steps
    assert list(late.steps) == sorted(late.steps)
    assert late.result | {"seconds": 0} == at_once.result | {"seconds": 0}
    assert all(torch.equal(value, at_once.weights[name]) for name, value in late.weights.items())


def test_a_loss_read_late_has_updated_nothing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps after the bad one are taken; the weights are as if it had never been."""
    unread(monkeypatch, 100)
    calls = 0

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return cross_entropy(scores, labels) * (float("nan") if calls == 2 else 1)

    model = bench.model(adapter=False)
    with pytest.raises(MtbertError, match=r"step 2 \(sst\): the loss is nan"):
        bench.run(tmp_path, model=model, losses={**LOSSES, "sst": loss}, sampler="sequential", checkpoint_seconds=1e9)
    assert calls == 2, "both sst steps of the epoch"
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not list(tmp_path.glob("*.safetensors"))


def cpu_out_of_memory() -> Exception:
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    pytest.fail("a petabyte was to be had")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("Tried to allocate 9 GiB"), "9 GiB"),
        (cpu_out_of_memory(), "can't allocate memory"),
        (MemoryError("numpy"), "numpy"),
    ],
)
def test_memory_that_runs_out_names_the_batch_size(
    bench: Bench, tmp_path: Path, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Tensor:
        raise error

    message = rf"step 1 \(sst\): out of memory on cpu; lower this run's batch_size .*{told}"
    with pytest.raises(MtbertError, match=message):
        bench.run(tmp_path, losses={**LOSSES, "sst": fail})
    monkeypatch.setattr(AdamW, "step", fail)
    with pytest.raises(MtbertError, match=message):
        bench.run(tmp_path)


def test_another_error_of_torch_stays_what_it_is(bench: Bench, tmp_path: Path) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        bench.run(tmp_path, losses={**LOSSES, "sst": fail})


def infinite_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """A finite loss whose backward is infinite."""
    loss = cross_entropy(scores, labels)
    return loss + (loss - loss.detach()).sqrt()


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_weight_that_is_not_finite_reaches_neither_a_checkpoint_nor_the_end(
    bench: Bench, tmp_path: Path, checkpoint_seconds: float
) -> None:
    """One sst step at the end of each epoch: no later loss of the epoch could tell."""
    settings: dict[str, Any] = {"sampler": "round_robin", "epoch_end": 1, "epochs": 1}
    with pytest.raises(MtbertError, match=r"step 1: \S+ holds NaN or infinity; lower this run's learning_rate"):
        bench.run(
            tmp_path, losses={**LOSSES, "sst": infinite_gradient}, checkpoint_seconds=checkpoint_seconds, **settings
        )
    with pytest.raises(MtbertError, match=r"holds NaN or infinity|the loss is nan"):
        bench.run(tmp_path, losses={**LOSSES, "sst": infinite_gradient}, checkpoint_seconds=checkpoint_seconds)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "dora"])
def test_learnable_data_is_learnt(bench: Bench, tmp_path: Path, adapter: bool) -> None:
    outcome = bench.run(
        tmp_path,
        adapter=adapter,
        sampler="round_robin",
        epochs=12,
        rows=24,
        batch_size=8,
        learning_rate=0.03,
        checkpoint_seconds=1e9,
    )
    losses = [row["train_loss"] for row in outcome.result["history"][1:]]
    assert losses[-1] < 0.6 * losses[0]


def test_the_cosine_embedding_loss_trains_the_encoder(
    bench: Bench, tmp_path: Path, make_model: Callable[..., MultitaskModel]
) -> None:
    model = make_model("mean", None, None, dropout=0.0)
    losses = {**LOSSES, "sts": partial(cosine_embedding, margin=0.0, threshold=2.5)}
    outcome = bench.run(tmp_path, model=model, losses=losses, epochs=12, rows=24, batch_size=8, learning_rate=0.03)
    by_epoch = [
        np.mean([step.loss for step in outcome.steps.values() if step.task == "sts" and step.epoch == epoch])
        for epoch in (1, 12)
    ]
    assert by_epoch[1] < 0.8 * by_epoch[0]


def test_one_task_trains_alone_and_leaves_the_other_heads(bench: Bench, tmp_path: Path) -> None:
    model = bench.model(adapter=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = {"sst": bench.make_split("sst", 7)}
    result = train(
        model,
        data,
        LOSSES,
        wrapper=bench.wrapper,
        compute=CPU,
        sampler="sequential",
        epoch_end="depletion",
        epochs=1,
        batch_size=4,
        learning_rate=0.01,
        seed=0,
        evaluate=lambda _model: {},
        on_step=lambda _step: None,
        on_epoch=lambda _row: None,
        work=tmp_path,
        checkpoint_seconds=0,
    )
    assert result["batches"] == {"sst": 2}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "heads.sst.linear.weight" in moved
    assert not any(name.startswith(("heads.quora", "heads.sts")) for name in moved)
