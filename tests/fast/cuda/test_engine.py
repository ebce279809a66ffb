"""The CUDA engine's steps equal those of the plain one, replayed or launched.

Without a GPU, stand-ins take the place of the flash kernel and of the recorder, which runs the same work again on the same memory.
What they cannot show waits for a card (`-m gpu`): that CUDA records this work at all, and its masks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.work import objectives
from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import TokenStream, Wrapper
from mtbert.fast import accelerate
from mtbert.fast.cuda import encoder, passes
from mtbert.fast.cuda import engine as module
from mtbert.fast.cuda.encoder import DeviceNoise
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.fast.cuda.passes import Passes, Ragged
from mtbert.fast.cuda.static import StaticBatch
from mtbert.model.bert import BertConfig
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.dora import DoraLinear
from mtbert.tasks.correlation import CoSent, Pearson
from mtbert.tasks.losses import binary_cross_entropy, cosine_embedding, cross_entropy, mean_squared_error
from mtbert.tasks.objective import Objective
from mtbert.tasks.ordinal import Corn
from mtbert.tasks.paper import TASKS as PAPER_TASKS
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain
from mtbert.training.log import Observer, Step
from mtbert.training.loop import Training
from mtbert.training.recipe import Recipe
from mtbert.training.task_losses import task_losses
from mtbert.training.uncertainty import UncertaintyWeights
from tests.tiny import adapt

TASKS = ("sst", "quora", "sts")
LOSSES: dict[str, Any] = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
COSINES: dict[str, Any] = {**LOSSES, "sts": partial(cosine_embedding, margin=0.0, threshold=2.5)}
CPU = Compute(torch.device("cpu"), bf16=False, graphs=True)
GPU = Compute(torch.device("cuda"), bf16=True, graphs=True)
TINY = BertConfig(vocabulary=40, positions=32, layers=2, hidden=32, heads=2, intermediate=48)
WIDE = BertConfig(vocabulary=40, positions=32, layers=2, hidden=64, heads=2, intermediate=128)
SIZE = 4
Model = Callable[..., MultitaskModel]
Batches = Callable[..., Iterator[Batch]]


class Again:
    """A recorder that runs the work again at each replay."""

    def __init__(self, _device: torch.device) -> None: ...

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        warm_up()
        return lambda: work().clone()


def dense_attention(qkv_TE: Tensor, ragged: Ragged, heads: int, _dropout: float) -> Tensor:
    """The flash kernel's attention without dropout, by a mask over all pairs of tokens."""
    sequence = torch.searchsorted(ragged.offsets[1:-1].contiguous(), torch.arange(len(qkv_TE)), right=True)
    exact = qkv_TE.to(torch.promote_types(qkv_TE.dtype, torch.float32))
    with torch.autocast("cpu", enabled=False):
        q, k, v = exact.view(len(exact), 3, heads, -1).permute(1, 2, 0, 3)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(sequence[:, None] != sequence, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1).to(qkv_TE.dtype)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine on a CPU."""
    monkeypatch.setattr(CudaEngine, "recorder", Again)
    monkeypatch.setattr(passes, "flash_attention", dense_attention)
    monkeypatch.setattr(DeviceNoise, "reseed", lambda _self, seed, step, *_: torch.manual_seed(1000 * seed + step))


@pytest.fixture
def any_type(monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    """The engine's own forward also without autocast: in float64, AdamW does not amplify rounding errors."""

    def encode(self: CudaEngine, stream: TokenStream, first_only: bool = False) -> Tensor:
        return encoder.encode(self.model.encoder, stream, first_only, self._products, self._passes())

    monkeypatch.setattr(CudaEngine, "encode", encode)


def recipe(learning_rate: float = 0.01) -> Recipe:
    return Recipe("square_root", "depletion", epochs=2, batch_size=SIZE, learning_rate=learning_rate, seed=5)


def engine_on(kind: type[Plain], model: MultitaskModel, compute: Compute = CPU, learning_rate: float = 0.01) -> Any:
    engine = kind(model.to(compute.device).train(), compute)
    if kind is CudaEngine:
        model.engine = engine
    engine.optimizer(recipe(learning_rate))
    return engine


@pytest.fixture
def batches(make_split: Callable[..., Split], wrapper: Wrapper) -> Batches:
    """batches(model, steps): batches of all tasks in turn and of changing lengths; every fifth is not full."""

    def make(model: MultitaskModel, steps: int) -> Iterator[Batch]:
        for step in range(1, steps + 1):
            task = TASKS[step % 3]
            rows = np.arange(SIZE - (step % 5 == 0))
            yield make_batch(task, make_split(task, SIZE, step), rows, model.views(task), wrapper)

    return make


def curve(engine: Any, batches: Iterator[Batch], losses: dict[str, Any] = LOSSES) -> list[float]:
    return [float(engine.step(batch, losses[batch.task], 7, step)) for step, batch in enumerate(batches, start=1)]


FEATURES: dict[str, tuple[Sequence[str] | None, Sequence[str] | None]] = {
    "cls": (None, None),  # cosines
    "mean": (("u", "v", "c"), ("|u-v|", "|u+v|", "c")),
    "max": (("u", "v", "|u-v|"), ("u", "v")),
}


@pytest.fixture(params=["cls-full", "cls-dora", "mean-full", "mean-lora", "max-lora", "max-dora"])
def variant(request: pytest.FixtureRequest, make_model: Model) -> Model:
    """variant(dropout): a fresh model of one kind."""
    pooling, method = request.param.split("-")

    def make(dropout: float = 0.0, config: BertConfig = TINY) -> MultitaskModel:
        model = make_model(pooling, *FEATURES[pooling], dropout=dropout, head_dropout=dropout, config=config)
        if method != "full":
            adapt(model, method, dropout=dropout)
        return model

    return make


def losses_for(model: MultitaskModel) -> dict[str, Any]:
    return LOSSES if list(model.heads["sts"].parameters()) else COSINES


def equal(one: MultitaskModel, other: MultitaskModel, **limits: float) -> bool:
    """Whether the weights are equal, bit for bit unless limits are given."""
    compare = partial(torch.allclose, **limits) if limits else torch.equal
    theirs = other.state_dict()
    return all(compare(value, theirs[name]) for name, value in one.state_dict().items())


def gradients(engine: Any, batch: Batch, loss: Any) -> dict[str, Tensor]:
    """The gradients by parameter, and the loss under ""."""
    engine.model.zero_grad()
    found = {"": engine.backward(batch.to(engine.compute.device), loss)}
    return found | {name: p.grad.clone() for name, p in engine.model.named_parameters() if p.grad is not None}


def furthest(plain: MultitaskModel, fast: MultitaskModel, compute: Compute, batches: Iterator[Batch]) -> float:
    """The largest relative difference of a loss or a gradient between the two engines."""
    one, other = engine_on(Plain, plain, compute), engine_on(CudaEngine, fast, compute)
    largest = 0.0
    for batch in batches:
        mine, theirs = (gradients(engine, batch, losses_for(plain)[batch.task]) for engine in (other, one))
        assert mine.keys() == theirs.keys() and len(mine) > 5
        whole = torch.cat([value.flatten() for name, value in theirs.items() if name]).norm()
        # A gradient of near nothing (a key's bias) is all rounding: what counts is its part of the whole.
        apart = [float((mine[name] - theirs[name]).norm() / (theirs[name].norm() + 0.01 * whole)) for name in theirs]
        largest = max(largest, *apart)
    return largest


@pytest.mark.usefixtures("any_type")
def test_a_joint_step_is_that_of_the_plain_engine(
    variant: Model, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    models = []
    for kind in (Plain, CudaEngine):
        model = variant().double()
        engine = engine_on(kind, model)
        engine.optimizer(replace(recipe(), sampler="joint"))
        for step in (1, 2):
            engine.joint_step(list(batches(model, 3)), losses_for(model), 7, step)
        models.append(model)
    assert equal(*models, atol=1e-9)
    assert capsys.readouterr().err.count("without CUDA graphs") == 1


@pytest.mark.usefixtures("stand_in")
def test_it_equals_the_plain_engine(variant: Model, batches: Batches) -> None:
    """In bf16 up to rounding; in fp32, for which there are no attention kernels, the same modules run."""
    plain, fast = variant(), variant()
    limit = 0.05
    if any(isinstance(one, DoraLinear) for one in plain.modules()):  # its merged weights are rounded too
        limit = 0.6 if plain.pooling == "max" else 0.15  # a maximum may then be at another token
    assert furthest(plain, fast, CPU._replace(bf16=True), batches(plain, 6)) < limit
    assert furthest(plain, fast, CPU, batches(plain, 3)) == 0


@pytest.mark.usefixtures("stand_in")
def test_prediction_before_and_between_steps(variant: Model, batches: Batches) -> None:
    """Inference makes no tensor that a later step could not differentiate, and no step changes what prediction computes.

    Among the variants is an adapted pooler, which computes in fp32 while all other adapted layers are merged in bf16.
    """
    plain, fast = variant(), variant()
    engines = [engine_on(Plain, plain, CPU._replace(bf16=True)), engine_on(CudaEngine, fast, CPU._replace(bf16=True))]
    for step, batch in enumerate(batches(plain, 3), start=1):
        scores = []
        for engine in engines:
            with engine.inference():
                scores.append(engine.model.eval()(batch).clone())
            engine.model.train()
            engine.step(batch, losses_for(plain)[batch.task], 7, step)
        torch.testing.assert_close(*scores, atol=0.1, rtol=0.1)


def _one_sequence(qkv_TE: Tensor, ragged: Ragged, heads: int, dropout: float) -> Tensor:
    return dense_attention(qkv_TE, Ragged(ragged.offsets[[0, -1]], ragged.longest), heads, dropout)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("bug", ["attention across sequences", "another token's residual", "query and key swapped"])
def test_the_comparison_notices_a_bug_in_the_forward(
    bug: str, make_model: Model, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bug == "attention across sequences":
        monkeypatch.setattr(passes, "flash_attention", _one_sequence)
    elif bug == "another token's residual":
        rolled = lambda self, x, *rest, real=Passes.residual_norm: real(self, x.roll(1, 0), *rest)  # noqa: E731
        monkeypatch.setattr(Passes, "residual_norm", rolled)
    else:
        swapped = lambda qkv, *rest: dense_attention(torch.cat(qkv.chunk(3, -1)[::-1], -1), *rest)  # noqa: E731
        monkeypatch.setattr(passes, "flash_attention", swapped)
    plain, fast = (make_model("cls", None, None, config=TINY, dropout=0.0, head_dropout=0.0) for _ in range(2))
    assert furthest(plain, fast, CPU._replace(bf16=True), batches(plain, 1)) > 0.2


@pytest.mark.usefixtures("any_type")
def test_replayed_steps_are_plain_steps(variant: Model, batches: Batches) -> None:
    plain, graphed = variant().double(), variant().double()
    engine = engine_on(CudaEngine, graphed)
    expected = curve(engine_on(Plain, plain), batches(plain, 12), losses_for(plain))
    assert curve(engine, batches(graphed, 12), losses_for(graphed)) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert equal(plain, graphed, atol=1e-7, rtol=1e-6)
    assert 3 <= engine.recorded < 12


def _nothing_written(self: StaticBatch, batch: Batch) -> None:
    if not self.batch.stream.ids.any():
        FILL(self, batch)


def _kept(part: Callable[[StaticBatch], Tensor]) -> Callable[[StaticBatch, Batch], None]:
    def fill(self: StaticBatch, batch: Batch) -> None:
        before, first = part(self).clone(), not self.batch.stream.ids.any()
        FILL(self, batch)
        if not first:
            part(self).copy_(before)

    return fill


FILL = StaticBatch.fill
STALE = [
    _nothing_written,
    _kept(lambda static: static.batch.labels),  # type: ignore[arg-type, return-value]
    _kept(lambda static: static.batch.stream.offsets),
]


@pytest.mark.usefixtures("any_type")
@pytest.mark.parametrize("bug", STALE)
def test_the_comparison_notices_a_stale_buffer(
    bug: Any, make_model: Model, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, graphed = (make_model(dropout=0.0, head_dropout=0.0).double() for _ in range(2))
    expected = curve(engine_on(Plain, plain), batches(plain, 12))
    monkeypatch.setattr(StaticBatch, "fill", bug)
    assert curve(engine_on(CudaEngine, graphed), batches(graphed, 12)) != pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert not equal(plain, graphed, atol=1e-7, rtol=1e-6)


@pytest.mark.usefixtures("any_type")
def test_recording_changes_neither_weights_nor_optimizer(variant: Model, batches: Batches) -> None:
    model = variant(dropout=0.1)
    engine = engine_on(CudaEngine, model)
    optimizer = engine._optimizer
    for step, batch in enumerate(batches(model, 6), start=1):
        before = deepcopy(model)
        states = {key: {k: v.clone() for k, v in state.items()} for key, state in optimizer.state.items()}
        loss = losses_for(model)[batch.task]
        engine._graph_of(batch, loss)
        assert equal(model, before) and (step > 1 or engine.recorded == 1)
        for parameter, state in optimizer.state.items():
            old = states.get(parameter, {name: torch.zeros_like(value) for name, value in state.items()})
            assert all(torch.equal(value, old[name]) for name, value in state.items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(group["capturable"] for group in optimizer.param_groups)
        engine.step(batch, loss, 7, step)
        assert not equal(model, before)


@pytest.mark.usefixtures("any_type")
def test_when_a_graph_is_recorded_does_not_matter(variant: Model, batches: Batches) -> None:
    """All at the beginning, or each at its first batch: the same bits, with dropout."""
    early, late = variant(dropout=0.2), variant(dropout=0.2)
    first, second = engine_on(CudaEngine, early), engine_on(CudaEngine, late)
    losses = losses_for(early)
    for batch in batches(early, 9):
        first._graph_of(batch, losses[batch.task])
    assert curve(first, batches(early, 9), losses) == curve(second, batches(late, 9), losses)
    assert equal(early, late)


@pytest.mark.usefixtures("stand_in")
def test_a_loss_that_is_not_finite_updates_nothing(make_model: Model, batches: Batches) -> None:
    model = make_model()
    before = deepcopy(model)
    bad = {task: lambda *given, loss=loss: loss(*given) * float("nan") for task, loss in LOSSES.items()}
    assert all(np.isnan(loss) for loss in curve(engine_on(CudaEngine, model), batches(model, 5), bad))
    assert equal(model, before)


@pytest.mark.usefixtures("stand_in")
def test_which_batches_are_replayed(
    make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    engine = engine_on(CudaEngine, model)

    def batch(rows: int) -> Batch:
        return make_batch("quora", make_split("quora", rows), np.arange(rows), model.views("quora"), wrapper)

    for number, (rows, graphs_then) in enumerate([(SIZE - 1, 0), (SIZE, 1), (SIZE, 1), (SIZE + 1, 1)], start=1):
        engine.step(batch(rows), binary_cross_entropy, 7, number)
        assert engine.recorded == graphs_then
    monkeypatch.setattr(module, "rows_for", lambda _tokens: None)
    engine.step(batch(SIZE), binary_cross_entropy, 7, 5)
    assert engine.recorded == 1
    engine.optimizer(recipe())  # a graph holds the old one
    assert engine.recorded == 0


@pytest.mark.usefixtures("stand_in")
def test_a_model_without_its_engine_draws_the_plain_masks(make_model: Model, batches: Batches) -> None:
    model = make_model()
    (batch,) = batches(model, 1)
    expected = curve(engine_on(Plain, deepcopy(model)), iter([batch]))
    engine_on(CudaEngine, model)
    assert curve(engine_on(Plain, deepcopy(model)), iter([batch])) == expected, "a copy has no engine"
    copied = {id(one.noise) for one in deepcopy(model).modules() if isinstance(one, Dropout)}
    assert len(copied) == 1 and isinstance(model.encoder.noise, DeviceNoise)
    model.release()
    assert model.engine is None and type(model.encoder.noise) is Noise
    assert curve(engine_on(Plain, model), iter([batch])) == expected


def test_rocm_runs_the_plain_engine(make_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert accelerate(make_model(), GPU) == "the fast path on a GPU is for CUDA, and this torch is built for ROCm"


class Refusing(Again):
    """A recorder that fails during a step of `quora`, and in some cases again when it ends, as CUDA's does."""

    ending_fails = False

    def __call__(self, warm_up: Any, work: Any) -> Callable[[], Tensor]:
        batch, loss = work.args
        if loss is not binary_cross_entropy:
            return super().__call__(warm_up, work)
        try:
            work.func.__self__.model(batch).sum().backward()
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            if self.ending_fails:
                raise RuntimeError("a previous error")


@pytest.mark.usefixtures("any_type")
@pytest.mark.parametrize("ending_fails", [False, True])
def test_steps_that_cannot_be_recorded_are_launched_after_one_note(
    make_model: Model, batches: Batches, monkeypatch: pytest.MonkeyPatch, ending_fails: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain, graphed = (make_model(dropout=0.0, head_dropout=0.0).double() for _ in range(2))
    expected = curve(engine_on(Plain, plain), batches(plain, 24))
    monkeypatch.setattr(CudaEngine, "recorder", Refusing)
    monkeypatch.setattr(Refusing, "ending_fails", ending_fails)
    engine = engine_on(CudaEngine, graphed)
    assert curve(engine, batches(graphed, 24)) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert equal(plain, graphed, atol=1e-7, rtol=1e-6)
    assert engine.recorded and not any(graph for (task, _), graph in engine._graphs.items() if task == "quora")
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert (
        printed.startswith("note: quora: a step of ") and "operation not permitted when stream is capturing" in printed
    )
    assert not any(group["capturable"] for group in engine._optimizer.param_groups)


@pytest.mark.usefixtures("stand_in")
def test_running_out_of_memory_while_recording_is_an_error(
    make_model: Model, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Again):
        def __call__(self, *_: Any) -> Callable[[], Tensor]:
            raise torch.OutOfMemoryError("Tried to allocate 9 GiB")

    monkeypatch.setattr(CudaEngine, "recorder", Full)
    model = make_model()
    with pytest.raises(torch.OutOfMemoryError, match="9 GiB"):
        curve(engine_on(CudaEngine, model), batches(model, 1))


class Dying(Observer):
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: Step) -> None:
        if step.step == self.at:
            raise KeyboardInterrupt


def run(folder: Path, make_split: Any, wrapper: Wrapper, compute: Compute, model: MultitaskModel, die_at: int = 0) -> MultitaskModel:  # fmt: skip
    """A run of `Training` over all tasks, with a checkpoint after each step, which stops at step `die_at`."""
    model = model.to(compute.device)
    model.engine = CudaEngine(model, compute)
    Training(
        model.engine,
        {task: make_split(task, rows) for task, rows in {"sst": 9, "quora": 14, "sts": 8}.items()},
        LOSSES,
        recipe(),
        wrapper=wrapper,
        evaluate=lambda _model: {},
        observers=[Dying(die_at)],
        work=folder,
        checkpoint_seconds=0,
    ).run()
    return model


def resumes(folder: Path, fresh: Callable[[], MultitaskModel], *where: Any) -> None:
    """Assert that a run stopped in different steps records its graphs again and ends in the same bits."""
    undisturbed = run(folder / "undisturbed", *where, fresh())
    assert undisturbed.engine.recorded >= 3  # type: ignore[union-attr]
    for k in (2, 5, 7):
        with pytest.raises(KeyboardInterrupt):
            run(folder / str(k), *where, fresh(), k)
        assert equal(run(folder / str(k), *where, fresh()), undisturbed), k


@pytest.mark.usefixtures("any_type")
def test_a_resumed_run_records_again_and_ends_in_the_same_bits(
    tmp_path: Path, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    resumes(tmp_path, make_model, make_split, wrapper, CPU)


# ---- with Triton's kernels, which Triton's interpreter runs


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from mtbert.fast.cuda.fused import FusedPasses

    monkeypatch.setattr(CudaEngine, "passes_for", lambda *_: FusedPasses)
    # Triton's interpreter cannot multiply bf16; test_attention.py compares the kernel in other types.
    monkeypatch.setattr(FusedPasses, "attention", Passes.attention)


@pytest.mark.usefixtures("stand_in", "fused")
@pytest.mark.parametrize("variant", ["cls-full", "mean-lora"], indirect=True)
def test_fused_it_equals_the_plain_engine(variant: Model, batches: Batches) -> None:
    plain, fast = variant(), variant()
    assert furthest(plain, fast, CPU._replace(bf16=True), batches(plain, 2)) < 0.1


# ---- on torch's meta device the code takes the way it takes on CUDA, and whatever would wait for a value fails


@pytest.fixture
def _autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: True)


def taken_on_meta(model: MultitaskModel, batch: Batch, loss: Any) -> None:
    """Forward and backward of a static step, shapes only."""
    meta = torch.device("meta")
    model.to(meta).train()
    model.engine = engine = CudaEngine(model, Compute(meta, bf16=True))
    engine.backward(StaticBatch(batch, 512, 24, meta).batch, loss).isfinite().logical_not().float()


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize("task", TASKS)
def test_a_static_step_does_not_wait_for_values(
    variant: Model, task: str, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = variant(dropout=0.1)
    batch = make_batch(task, make_split(task, SIZE), np.arange(SIZE), model.views(task), wrapper)
    taken_on_meta(model, batch, losses_for(model)[task])
    assert model.encoder.embeddings.token.weight.grad is not None


OTHERS: dict[str, Objective] = {
    "corn": Corn(objective="corn", features=["u"]),
    "pearson": Pearson(objective="pearson", features=["u"], clamp=True),
    "cosent": CoSent(objective="cosent", features=["u"], clamp=True),
}


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize(("name", "task"), [("corn", "sst"), ("pearson", "sts"), ("cosent", "sts")])
def test_a_static_step_with_another_loss_does_not_wait_either(
    make_model: Model, name: str, task: str, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = make_model(dropout=0.1)
    model.uncertainty = weights = UncertaintyWeights({task: PAPER_TASKS[task]})
    loss = task_losses({task: OTHERS[name]}, r_drop=1.0, uncertainty=weights)[task]
    passes = np.tile(np.arange(SIZE), 2)
    taken_on_meta(model, make_batch(task, make_split(task, SIZE), passes, model.views(task), wrapper), loss)
    assert weights.log_variances[0].grad is not None


@pytest.mark.usefixtures("any_type")
def test_replayed_steps_of_two_passes_are_plain_steps(
    make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    def run(kind: type[Plain]) -> tuple[list[float], Any]:
        model = make_model(dropout=0.0, head_dropout=0.0).double()
        model.uncertainty = weights = UncertaintyWeights(PAPER_TASKS)
        losses = task_losses(objectives(["u"], ["u"]), r_drop=1.0, uncertainty=weights)
        engine = engine_on(kind, model)
        engine.optimizer(replace(recipe(), passes=2, uncertainty_learning_rate=0.01))
        made = []
        for step in range(1, 13):
            task, rows = TASKS[step % 3], np.tile(np.arange(SIZE - (step % 5 == 0)), 2)
            made.append(make_batch(task, make_split(task, SIZE, step), rows, model.views(task), wrapper))
        return curve(engine, iter(made), losses), engine

    (expected, plain), (found, graphed) = run(Plain), run(CudaEngine)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert equal(plain.model, graphed.model, atol=1e-7, rtol=1e-6)
    assert 3 <= graphed.recorded < 12


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize(
    "bug",
    [
        lambda scores, labels: binary_cross_entropy(scores, labels) * float(labels[0]),
        lambda scores, labels: binary_cross_entropy(scores[labels > 0], labels[labels > 0]),
        lambda scores, labels: binary_cross_entropy(scores, labels) if labels.any() else scores.sum(),
    ],
)
def test_the_check_notices_an_operation_that_waits(
    bug: Any, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = make_model()
    batch = make_batch("quora", make_split("quora", SIZE), np.arange(SIZE), model.views("quora"), wrapper)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        taken_on_meta(model, batch, bug)


# ---- what only a card can show

on_gpu = partial(engine_on, CudaEngine, compute=GPU)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_replays_on_a_gpu_are_the_plain_engine_s_steps(variant: Model, batches: Batches) -> None:
    """Losses up to bf16's rounding; with small steps, since AdamW divides a gradient by its size and so amplifies rounding errors."""
    launched, graphed = variant(config=WIDE), variant(config=WIDE)
    losses = losses_for(graphed)
    engine = on_gpu(graphed, learning_rate=1e-4)
    expected = curve(engine_on(Plain, launched, GPU, 1e-4), batches(launched, 15), losses)
    assert curve(engine, batches(graphed, 15), losses) == pytest.approx(expected, rel=0.05, abs=0.05)
    assert engine.recorded >= 3


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_recording_on_a_gpu_at_any_time_ends_in_the_same_bits(variant: Model, batches: Batches) -> None:
    early, late = variant(dropout=0.2, config=WIDE), variant(dropout=0.2, config=WIDE)
    first, second = on_gpu(early, learning_rate=1e-4), on_gpu(late, learning_rate=1e-4)
    losses, before = losses_for(early), deepcopy(early)
    for batch in batches(early, 9):
        first._graph_of(batch, losses[batch.task])
    assert equal(early, before)
    assert curve(first, batches(early, 9), losses) == curve(second, batches(late, 9), losses)
    assert equal(early, late)


@pytest.mark.gpu
def test_masks_on_a_gpu_are_a_function_of_seed_and_step(make_model: Model, batches: Batches) -> None:
    """The same batch in every step without learning, so only the masks can change the loss."""
    model = make_model(config=WIDE, dropout=0.5, head_dropout=0.5)
    engine = on_gpu(model, learning_rate=1e-30)
    (batch,) = batches(model, 1)
    drawn = {key: float(engine.step(batch, LOSSES[batch.task], *key)) for key in [(7, 1), (7, 2), (7, 3), (8, 1)]}
    torch.cuda.manual_seed(99)
    torch.rand(1000, device="cuda")
    assert {key: float(engine.step(batch, LOSSES[batch.task], *key)) for key in reversed(drawn)} == drawn
    assert len(set(drawn.values())) == 4
    assert engine.recorded == 1


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False], ids=["replayed", "launched"])
def test_a_step_never_waits(variant: Model, batches: Batches, graphs: bool) -> None:
    model = variant(dropout=0.1, config=WIDE)
    engine, losses = engine_on(CudaEngine, model, GPU._replace(graphs=graphs)), losses_for(model)
    chosen = [batch for batch in batches(model, 9) if not graphs or len(batch.labels) == SIZE]  # type: ignore[arg-type]
    for batch in chosen:
        engine.step(batch, losses[batch.task], 7, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in chosen:
            engine.step(batch, losses[batch.task], 7, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_training_continues_after_a_failed_recording(
    make_model: Model, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that waits cannot be recorded. Without learning only the masks can change a loss: its own, and those of graphs
    that were recorded before and after it, must stay functions of (seed, step)."""
    waiting = {
        **LOSSES,
        "quora": lambda scores, labels: binary_cross_entropy(scores, labels) * float(scores.sum() < 1e9),
    }
    model = make_model(config=WIDE, dropout=0.5, head_dropout=0.5)
    batch = dict(zip(("quora", "sts", "sst"), batches(model, 3), strict=True))
    keys = [(7, 1), (7, 2), (8, 1)]

    def losses(engine: Any, task: str, of: dict[str, Any]) -> list[float]:
        return [float(engine.step(batch[task], of[task], *key)) for key in keys]

    graphed = on_gpu(model, learning_rate=1e-30)
    expected = {task: losses(graphed, task, LOSSES) for task in ("sst", "sts")}
    launched = engine_on(CudaEngine, model, GPU._replace(graphs=False), 1e-30)
    expected["quora"] = losses(launched, "quora", LOSSES)
    engine, stream = on_gpu(model, learning_rate=1e-30), torch.cuda.current_stream()
    for task in ("sst", "quora", "sst", "sts", "quora", "sst"):
        assert losses(engine, task, waiting) == pytest.approx(expected[task], rel=1e-3), task
        assert torch.cuda.current_stream() == stream
    assert engine.recorded == 2
    assert capsys.readouterr().err.count("cannot be recorded as a CUDA graph") == 1


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_on_a_gpu_ends_in_the_same_bits(
    tmp_path: Path, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    resumes(tmp_path, partial(make_model, config=WIDE), make_split, wrapper, GPU)
