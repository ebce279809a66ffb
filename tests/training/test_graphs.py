"""Steps replayed from graphs are steps. Without a GPU a stand-in records: it runs the very same work again on the same memory.

What the stand-in cannot show waits for a card (`-m gpu`): that CUDA records this work at all, and its masks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mtbert.data.static import StaticBatch
from mtbert.model.embedding import TokenEmbedding
from mtbert.training.graphs import Steps
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import Ragged, Wrapper
from mtbert.errors import MtbertError
from mtbert.model import bert
from mtbert.model.bert import BertConfig
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_dora
from mtbert.tasks.losses import binary_cross_entropy, cosine_embedding, cross_entropy, mean_squared_error
from mtbert.training import graphs
from mtbert.training.compute import Compute
from mtbert.training.loop import train

TASKS = ("sst", "quora", "sts")
LOSSES: dict[str, Any] = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
COSINES: dict[str, Any] = {**LOSSES, "sts": partial(cosine_embedding, margin=0.0, threshold=2.5)}
CPU = torch.device("cpu")
PLAIN = Compute(CPU, bf16=False)
SIZE = 4
Model = Callable[..., MultitaskModel]


class Again:
    """A recorder that runs the work anew at each replay; `recorded` counts."""

    def __init__(self, _device: torch.device = CPU) -> None:
        self.recorded = 0

    def __call__(self, warm_up: Callable[[], object], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        warm_up()
        return lambda: work().clone()


def dense_attention(qkv_TE: Tensor, ragged: Ragged, heads: int, _dropout: float) -> Tensor:
    """What the kernel for ragged sequences computes, by a mask over all pairs of tokens; its dropout is left out."""
    sequence = torch.searchsorted(ragged.offsets[1:-1].contiguous(), torch.arange(len(qkv_TE)), right=True)
    q, k, v = qkv_TE.view(len(qkv_TE), 3, heads, -1).permute(1, 2, 0, 3)
    scores = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(sequence[:, None] != sequence[None, :], float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static steps on the CPU."""
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Again)
    monkeypatch.setattr(bert, "ragged_attention", dense_attention)
    # As on CUDA. The CPU's own lookup keeps the ids until the next step, which a static place must not be used for.
    monkeypatch.setattr(TokenEmbedding, "forward", lambda self, ids: F.embedding(ids, self.weight))


def optimizer_of(model: MultitaskModel, learning_rate: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=learning_rate, eps=1e-6, weight_decay=0.0, fused=True)


def stepper(
    model: MultitaskModel, graphed: bool, losses: dict[str, Any] = LOSSES, compute: Compute = PLAIN, lr: float = 0.01
) -> Steps:
    model.to(compute.device).train()
    return Steps(model, optimizer_of(model, lr), losses, compute._replace(graphs=graphed), SIZE, 24)


@pytest.fixture
def batches(make_split: Callable[..., Split], wrapper: Wrapper) -> Callable[..., Iterator[Batch]]:
    """batches(model, steps): full ones of all tasks in turn, of other lengths each time, every fifth not full."""

    def make(model: MultitaskModel, steps: int, size: int = SIZE) -> Iterator[Batch]:
        for step in range(1, steps + 1):
            task = TASKS[step % 3]
            rows = np.arange(size - (step % 5 == 0))
            yield make_batch(task, make_split(task, size, step), rows, model.views(task), wrapper)

    return make


def curve(steps: Steps, batches: Iterator[Batch]) -> list[float]:
    return [float(steps.take(batch, 7, step)) for step, batch in enumerate(batches, start=1)]


VARIANTS: dict[str, tuple[str, Sequence[str] | None, Sequence[str] | None]] = {
    "cls, cosines": ("cls", None, None),
    "mean, all features": ("mean", ("u", "v", "c"), ("|u-v|", "|u+v|", "c")),
    "max, bi-encoded": ("max", ("u", "v", "|u-v|"), ("u", "v")),
}


@pytest.fixture(params=[(name, rank) for name in VARIANTS for rank in (None, 2)], ids=lambda p: f"{p[0]}, rank {p[1]}")
def variant(request: pytest.FixtureRequest, make_model: Model) -> Callable[..., MultitaskModel]:
    """variant(dropout): a fresh model of one kind, with DoRA or without."""
    name, rank = request.param

    def make(dropout: float = 0.0, **settings: Any) -> MultitaskModel:
        model = make_model(*VARIANTS[name], dropout=dropout, head_dropout=dropout, **settings)
        if rank:
            add_dora(model, rank=rank, alpha=rank, dropout=0.0, exact_norm=True, seed=3, train_rest=True)
        return model

    return make


def losses_for(model: MultitaskModel) -> dict[str, Any]:
    return COSINES if model.views("sts") == ("u", "v") and not list(model.heads["sts"].parameters()) else LOSSES


def close(one: MultitaskModel, other: MultitaskModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(mine, theirs, atol=1e-7, rtol=1e-6) for mine, theirs in pairs)


@pytest.mark.usefixtures("stand_in")
def test_static_steps_are_the_loop_s_own(
    variant: Callable[..., MultitaskModel], batches: Callable[..., Iterator[Batch]]
) -> None:
    """In float64, since AdamW blows rounding up: it divides a gradient by its own size."""
    plain, graphed = variant().double(), variant().double()
    steps = stepper(graphed, True, losses_for(graphed))
    expected = curve(stepper(plain, False, losses_for(plain)), batches(plain, 12))
    assert curve(steps, batches(graphed, 12)) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert close(plain, graphed)
    assert 3 <= steps.recorded < 12


def _nothing_written(self: StaticBatch, batch: Batch) -> None:
    if not self.batch.stream.ids.any():
        FILL(self, batch)


def _labels_kept(self: StaticBatch, batch: Batch) -> None:
    assert self.batch.labels is not None
    before, first = self.batch.labels.clone(), not self.batch.stream.ids.any()
    FILL(self, batch)
    if not first:
        self.batch.labels.copy_(before)


def _offsets_kept(self: StaticBatch, batch: Batch) -> None:
    assert self.batch.stream.ragged is not None
    offsets, first = self.batch.stream.ragged.offsets, not self.batch.stream.ids.any()
    before = offsets.clone()
    FILL(self, batch)
    if not first:
        offsets.copy_(before)


FILL = StaticBatch.fill


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("bug", [_nothing_written, _labels_kept, _offsets_kept])
def test_the_comparison_sees_a_stale_place(
    bug: Any, make_model: Model, batches: Callable[..., Iterator[Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, graphed = (make_model(dropout=0.0, head_dropout=0.0).double() for _ in range(2))
    expected = curve(stepper(plain, False), batches(plain, 12))
    monkeypatch.setattr(StaticBatch, "fill", bug)
    assert curve(stepper(graphed, True), batches(graphed, 12)) != pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert not close(plain, graphed)


@pytest.mark.usefixtures("stand_in")
def test_recording_leaves_weights_and_optimizer_as_they_were(
    variant: Callable[..., MultitaskModel], batches: Callable[..., Iterator[Batch]]
) -> None:
    model = variant(dropout=0.1)
    steps = stepper(model, True, losses_for(model))
    for step, batch in enumerate(batches(model, 6), start=1):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        states = {key: {k: v.clone() for k, v in state.items()} for key, state in steps._optimizer.state.items()}
        recorded = steps.recorded
        steps._graph_of(batch)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        for parameter, state in steps._optimizer.state.items():
            old = states.get(parameter, {name: torch.zeros_like(value) for name, value in state.items()})
            assert all(torch.equal(value, old[name]) for name, value in state.items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(group["capturable"] for group in steps._optimizer.param_groups)
        if step == 1:
            assert steps.recorded == recorded + 1
        steps.take(batch, 7, step)
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.usefixtures("stand_in")
def test_when_a_graph_is_recorded_does_not_matter(
    variant: Callable[..., MultitaskModel], batches: Callable[..., Iterator[Batch]]
) -> None:
    """All at the beginning, or each at its first batch: the same bits, dropout on."""
    early, late = variant(dropout=0.2), variant(dropout=0.2)
    first, second = stepper(early, True, losses_for(early)), stepper(late, True, losses_for(late))
    for batch in batches(early, 9):
        first._graph_of(batch)
    assert curve(first, batches(early, 9)) == curve(second, batches(late, 9))
    for name, value in early.state_dict().items():
        assert torch.equal(value, late.state_dict()[name])


@pytest.mark.usefixtures("stand_in")
def test_a_loss_that_is_not_finite_updates_nothing(make_model: Model, batches: Callable[..., Iterator[Batch]]) -> None:
    model = make_model()
    bad = {task: (lambda *given, loss=loss: loss(*given) * float("nan")) for task, loss in LOSSES.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(np.isnan(loss) for loss in curve(stepper(model, True, bad), batches(model, 4)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.usefixtures("stand_in")
def test_which_batches_are_replayed(
    make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    steps = stepper(model, True)

    def batch(rows: int, seed: int = 0) -> Batch:
        return make_batch("quora", make_split("quora", rows, seed), np.arange(rows), model.views("quora"), wrapper)

    for number, (rows, graphs_then) in enumerate([(SIZE - 1, 0), (SIZE, 1), (SIZE, 1), (SIZE + 1, 1)], start=1):
        steps.take(batch(rows), 7, number)
        assert steps.recorded == graphs_then
    monkeypatch.setattr(graphs, "rows_for", lambda _tokens: None)
    steps.take(batch(SIZE), 7, 5)
    assert steps.recorded == 1


def test_a_cpu_takes_its_steps_as_ever(make_model: Model, batches: Callable[..., Iterator[Batch]]) -> None:
    plain, asked = make_model(), make_model()
    steps = stepper(asked, True)
    assert curve(steps, batches(asked, 5)) == curve(stepper(plain, False), batches(plain, 5))
    assert steps.recorded == 0


class Refusing(Again):
    """A recorder that fails in the middle of a step of `quora`, and sometimes again when it ends, as CUDA's does."""

    ending_fails = False

    def __call__(self, warm_up: Any, work: Any) -> Callable[[], Tensor]:
        if not isinstance(work, partial) or work.args[3] is not binary_cross_entropy:
            return super().__call__(warm_up, work)
        try:
            work.args[0](work.args[2]).sum().backward()
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            if self.ending_fails:
                raise RuntimeError("a previous error")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("ending_fails", [False, True])
def test_what_cannot_be_recorded_is_launched_after_one_note(
    make_model: Model, batches: Callable[..., Iterator[Batch]], monkeypatch: pytest.MonkeyPatch, ending_fails: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain, graphed = (make_model(dropout=0.0, head_dropout=0.0).double() for _ in range(2))
    expected = curve(stepper(plain, False), batches(plain, 24))
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Refusing)
    monkeypatch.setattr(Refusing, "ending_fails", ending_fails)
    steps = stepper(graphed, True)
    assert curve(steps, batches(graphed, 24)) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert close(plain, graphed)
    assert steps.recorded and not any(graph for (task, _), graph in steps._graphs.items() if task == "quora")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("note: quora: a step of ") and "operation not permitted when stream is capturing" in told
    assert not any(group["capturable"] for group in steps._optimizer.param_groups)


def test_memory_that_runs_out_while_recording_names_the_batch_size(
    make_model: Model, batches: Callable[..., Iterator[Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Callable[[], Tensor]:
        raise torch.OutOfMemoryError("Tried to allocate 9 GiB")

    monkeypatch.setitem(graphs.RECORDERS, "cpu", lambda _device: refuse)
    model = make_model()
    with pytest.raises(MtbertError, match=r"step 1 \(quora\): out of memory on cpu; lower this run's batch_size"):
        curve(stepper(model, True), batches(model, 1))


def run(
    folder: Path, model: MultitaskModel, make_split: Callable[..., Split], wrapper: Wrapper, compute: Compute,
    die_at: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """A run of `train` over all tasks, its checkpoints after each step; it stops where `die_at` says."""

    def on_step(step: Any) -> None:
        if step.step == die_at:
            raise KeyboardInterrupt

    train(
        model,
        {task: make_split(task, rows) for task, rows in {"sst": 9, "quora": 14, "sts": 8}.items()},
        LOSSES,
        wrapper=wrapper,
        compute=compute,
        sampler="square_root",
        epoch_end="depletion",
        epochs=2,
        batch_size=SIZE,
        learning_rate=0.01,
        seed=5,
        evaluate=lambda _model: {},
        on_step=on_step,
        on_epoch=lambda _row: None,
        work=folder,
        checkpoint_seconds=0,
    )
    return {name: value.cpu().clone() for name, value in model.state_dict().items()}


def test_a_resumed_run_records_anew_and_ends_in_the_same_bits(
    tmp_path: Path, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper, stand_in: None
) -> None:
    compute = Compute(CPU, bf16=False, graphs=True)
    undisturbed = run(tmp_path / "undisturbed", make_model(), make_split, wrapper, compute)
    for k in (2, 5, 7):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(k), make_model(), make_split, wrapper, compute, k)
        resumed = run(tmp_path / str(k), make_model(seed=1), make_split, wrapper, compute)
        assert all(torch.equal(value, undisturbed[name]) for name, value in resumed.items()), k


# ---- on torch's meta device the code takes the way it takes on CUDA, and whatever would wait for a value fails


@pytest.fixture
def _autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device knows no autocast; that a product should be in bf16 is told to those who ask (DoRA's layers)."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _device: torch.bfloat16)


def taken_on_meta(model: MultitaskModel, batch: Batch, loss_of: Any) -> None:
    """Forward and backward of a static step, shapes only."""
    meta = torch.device("meta")
    model.to(meta).train()
    static = StaticBatch(batch, 512, 24, meta)
    scores = model(static.batch)
    loss = loss_of(scores, static.batch.labels)
    loss.backward()
    loss.detach().isfinite().logical_not().float()


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize("task", TASKS)
def test_nothing_in_a_static_step_waits_for_a_value(
    variant: Callable[..., MultitaskModel], task: str, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = variant(dropout=0.1)
    batch = make_batch(task, make_split(task, SIZE), np.arange(SIZE), model.views(task), wrapper)
    taken_on_meta(model, batch, losses_for(model)[task])
    assert model.encoder.embeddings.token.weight.grad is not None


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize(
    "bug",
    [
        lambda scores, labels: binary_cross_entropy(scores, labels) * float(labels[0]),
        lambda scores, labels: binary_cross_entropy(scores[labels > 0], labels[labels > 0]),
        lambda scores, labels: binary_cross_entropy(scores, labels) if labels.any() else scores.sum(),
    ],
)
def test_what_would_wait_is_found(
    bug: Any, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = make_model()
    batch = make_batch("quora", make_split("quora", SIZE), np.arange(SIZE), model.views("quora"), wrapper)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        taken_on_meta(model, batch, bug)


# ---- what only a card can show

GPU = Compute(torch.device("cuda"), bf16=True, graphs=True)
WIDE = BertConfig(vocabulary=40, positions=32, layers=2, hidden=64, heads=2, intermediate=128)


def on_gpu(model: MultitaskModel, graphed: bool, losses: dict[str, Any] = LOSSES) -> Steps:
    return stepper(model, graphed, losses, GPU, lr=1e-4)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_replays_on_a_gpu_are_the_loop_s_own_steps(
    variant: Callable[..., MultitaskModel], batches: Callable[..., Iterator[Batch]]
) -> None:
    """Losses up to bf16's rounding; small steps, since AdamW blows rounding up."""
    plain, graphed = variant(config=WIDE), variant(config=WIDE)
    steps = on_gpu(graphed, True, losses_for(graphed))
    expected = curve(on_gpu(plain, False, losses_for(plain)), batches(plain, 24))
    assert curve(steps, batches(graphed, 24)) == pytest.approx(expected, rel=0.05, abs=0.05)
    assert steps.recorded >= 3


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_recording_on_a_gpu_at_any_time_ends_in_the_same_bits(
    variant: Callable[..., MultitaskModel], batches: Callable[..., Iterator[Batch]]
) -> None:
    early, late = variant(dropout=0.2, config=WIDE), variant(dropout=0.2, config=WIDE)
    first, second = on_gpu(early, True, losses_for(early)), on_gpu(late, True, losses_for(late))
    before = {name: value.clone() for name, value in early.state_dict().items()}
    for batch in batches(early, 9):
        first._graph_of(batch)
    assert all(torch.equal(value, before[name]) for name, value in early.state_dict().items())
    assert curve(first, batches(early, 9)) == curve(second, batches(late, 9))
    for name, value in early.state_dict().items():
        assert torch.equal(value, late.state_dict()[name])


@pytest.mark.gpu
def test_masks_on_a_gpu_are_a_function_of_seed_and_step(
    make_model: Model, batches: Callable[..., Iterator[Batch]]
) -> None:
    """One batch again and again without learning: only the masks can change the loss."""
    model = make_model(config=WIDE, dropout=0.5, head_dropout=0.5)
    steps = Steps(model.to(GPU.device).train(), optimizer_of(model, 1e-30), LOSSES, GPU, SIZE, 24)
    (batch,) = batches(model, 1)
    drawn = {key: float(steps.take(batch, *key)) for key in [(7, 1), (7, 2), (7, 3), (8, 1)]}
    torch.cuda.manual_seed(99)
    torch.rand(1000, device="cuda")
    assert {key: float(steps.take(batch, *key)) for key in reversed(drawn)} == drawn
    assert len(set(drawn.values())) == 4
    assert steps.recorded == 1


@pytest.mark.gpu
def test_a_replay_never_waits(make_model: Model, batches: Callable[..., Iterator[Batch]]) -> None:
    model = make_model(config=WIDE)
    steps = on_gpu(model, True)
    full = [batch for batch in batches(model, 9) if batch.labels is not None and len(batch.labels) == SIZE]
    for batch in full:
        steps.take(batch, 7, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in full:
            steps.take(batch, 7, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_after_a_recording_that_fails_the_process_goes_on_as_ever(
    make_model: Model, batches: Callable[..., Iterator[Batch]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that waits cannot be recorded. Without learning only the masks can change a loss: its own, and those of graphs
    that were recorded before and after it, must stay functions of (seed, step)."""
    waiting = {
        **LOSSES,
        "quora": lambda scores, labels: binary_cross_entropy(scores, labels) * float(scores.sum() < 1e9),
    }
    model = make_model(config=WIDE, dropout=0.5, head_dropout=0.5)
    batch = {task: one for task, one in zip(("quora", "sts", "sst"), batches(model, 3), strict=True)}

    def fresh(losses: dict[str, Any], graphed: bool = True) -> Steps:
        compute = GPU._replace(graphs=graphed)
        return Steps(model.to(GPU.device).train(), optimizer_of(model, 1e-30), losses, compute, SIZE, 24)

    keys = [(7, 1), (7, 2), (8, 1)]
    graphed, launched = fresh(LOSSES), fresh(LOSSES, graphed=False)
    expected = {task: [float(graphed.take(batch[task], *key)) for key in keys] for task in ("sst", "sts")}
    expected["quora"] = [float(launched.take(batch["quora"], *key)) for key in keys]
    steps, stream = fresh(waiting), torch.cuda.current_stream()
    for task in ("sst", "quora", "sst", "sts", "quora", "sst"):
        assert [float(steps.take(batch[task], *key)) for key in keys] == pytest.approx(expected[task], rel=1e-3), task
        assert torch.cuda.current_stream() == stream
    assert steps.recorded == 2
    assert capsys.readouterr().err.count("cannot be recorded as a CUDA graph") == 1
    torch.cuda.manual_seed(1)
    first = torch.rand(8, device="cuda")
    torch.cuda.manual_seed(1)
    assert torch.equal(torch.rand(8, device="cuda"), first)


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_on_a_gpu_ends_in_the_same_bits(
    tmp_path: Path, make_model: Model, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    def fresh() -> MultitaskModel:
        return make_model(config=WIDE).to(GPU.device)

    undisturbed = run(tmp_path / "undisturbed", fresh(), make_split, wrapper, GPU)
    for k in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(k), fresh(), make_split, wrapper, GPU, k)
        resumed = run(tmp_path / str(k), fresh(), make_split, wrapper, GPU)
        assert all(torch.equal(value, undisturbed[name]) for name, value in resumed.items()), k
