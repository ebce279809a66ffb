"""The parity matrix: the plain engine beside the fast one, and bugs planted in the fast one, each of which some cell must see.

A cell is an adapter, a precision, a pooling and dropout on or off. The tests compare scores, the gradients of all trained parameters, the
losses of training steps, the updates of the weights and what the trained model predicts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import lay_out
from mtbert.engines import engine_for
from mtbert.fast.cpu import adamw, adapters, attention, embedding, encoder, narrow, passes
from mtbert.model.bert import BertConfig
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.registry import ADAPTERS
from mtbert.tasks.losses import binary_cross_entropy
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain
from mtbert.training.recipe import Recipe
from tests.tiny import WRAPPER, adapt, tiny_model, tiny_split

STEPS, BATCH, RATE = 3, 8, 2e-3


@dataclass(frozen=True)
class Cell:
    """What is trained, how precisely, and where."""

    method: str = "full"
    bf16: bool = False
    pooling: str = "mean"
    dropout: float = 0.0
    adapter_dropout: float = 0.0
    exact_norm: bool = True
    train_rest: bool = True
    device: str = "cpu"

    def __str__(self) -> str:
        default = Cell()
        own = [f"{name}={value}" for name, value in vars(self).items() if value != getattr(default, name)]
        return ",".join(own) or "full"

    def compute(self) -> Compute:
        return Compute(torch.device(self.device), self.bf16)

    def model(self) -> MultitaskModel:
        """A model as in training: no parameter has a value at which omitting it would not show."""
        model = tiny_model(self.pooling, dropout=self.dropout, head_dropout=self.dropout)
        if self.method != "full":
            own: dict[str, Any] = (
                {"rank": 4, "alpha": 8, "dropout": self.adapter_dropout} if self.method in METHODS else {}
            )
            if not self.exact_norm:
                own["norm_gradient"] = "detached"
            adapt(model, self.method, train_rest=self.train_rest, **own)
            draw = torch.Generator().manual_seed(2)
            for name, parameter in model.named_parameters():
                if name.endswith(("lora_b", "magnitude", ".shard", ".d", ".b", ".skew", ".factor", ".decode.weight")):
                    parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        return model.to(self.device)


METHODS, POOLINGS = ("full", "lora", "dora"), ("cls", "mean", "max")
CELLS = [
    Cell(method, bf16, pooling, dropout)
    for method in METHODS
    for bf16 in (False, True)
    for pooling in POOLINGS
    for dropout in (0.0, 0.2)
]
CELLS += [  # what the axes above leave out
    Cell("dora", bf16, adapter_dropout=p, exact_norm=False, dropout=0.2, train_rest=rest)
    for bf16 in (False, True)
    for p, rest in ((0.0, True), (0.3, False))
]
CELLS += [Cell("lora", adapter_dropout=0.3, train_rest=False), Cell("dora", adapter_dropout=0.3, pooling="cls")]
CELLS += [  # of these, the layers' own forward computes what they add
    Cell(method, bf16, dropout=0.2, train_rest=False)
    for method in ADAPTERS
    if method not in METHODS
    for bf16 in (False, True)
]
CELLS += [  # CUDA draws other dropout masks
    pytest.param(Cell(method, True, pooling, device="cuda"), marks=pytest.mark.gpu)
    for method in (*METHODS, "houlsby", "mtlora")
    for pooling in POOLINGS
]


def batches(model: MultitaskModel) -> list[Batch]:
    """Batches: the second has some of the first one's wordpieces only; the last is not full."""
    split, rows = tiny_split("quora", 4 * BATCH, longest=18), np.arange(4 * BATCH)
    cuts = (rows[:BATCH], rows[BATCH : BATCH + 2], rows[2 * BATCH : 3 * BATCH], rows[3 * BATCH :])
    return [make_batch("quora", split, chosen, model.views("quora"), WRAPPER) for chosen in cuts]


def outcome(cell: Cell, engine_of: Callable[[MultitaskModel, Compute], Engine]) -> dict[str, Tensor]:
    """Everything that is compared, by name."""
    model = cell.model()
    engine = engine_of(model, cell.compute())
    *train, held_out = batches(model)
    found = {}
    with engine.inference():
        found["scores"] = model.eval()(held_out.to(cell.compute().device)).clone()
    model.train().reseed(7, 0)
    engine.optimizer(Recipe("sequential", 1, 1, BATCH, RATE))
    assert isinstance(engine, Plain)
    engine.backward(train[0].to(cell.compute().device), binary_cross_entropy)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found |= {f"gradient of {name}": w.grad.float().clone() for name, w in trained.items() if w.grad is not None}
    model.zero_grad(set_to_none=True)
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    for step in range(STEPS):
        loss = engine.step(train[step], binary_cross_entropy, seed=7, step=step + 1)
        found[f"loss {step}"] = loss
    # No score depends on a key's bias, so that AdamW makes steps of full length of the noise in its gradient.
    updates = torch.cat(
        [(weight.detach() - before[name]).flatten() for name, weight in trained.items() if "key.bias" not in name]
    )
    found["updates of the weights"] = updates
    with engine.inference():
        found["scores after training"] = model.eval()(held_out.to(cell.compute().device)).clone()
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def fast(model: MultitaskModel, compute: Compute) -> Engine:
    engine = engine_for(model, compute)
    if type(engine) is Plain:
        pytest.skip("no fast engine here; mtbert.engines says why")
    return engine


def apart(ours: dict[str, Tensor], plain: dict[str, Tensor]) -> dict[str, float]:
    """Relative differences of all compared values; gradients below 0.05 and others below 1 are compared as if that large."""
    assert ours.keys() == plain.keys()
    least = {name: 0.05 if name.startswith("gradient") else 1.0 for name in plain}
    return {
        name: float((ours[name] - plain[name]).norm() / plain[name].norm().clamp_min(least[name])) for name in plain
    }


def limit(cell: Cell, name: str) -> float:
    """The tolerance of a value: for fp32 rounding, or for bf16 rounding, and more where a maximum may be at another token."""
    kind = name.split()[0]
    if not cell.bf16:
        return 2e-4 if kind == "updates" else 2e-5
    return {"gradient": 0.15, "updates": 0.15, "scores": 0.1}.get(kind, 0.03) * (4 if cell.pooling == "max" else 1)


def differences(cell: Cell) -> dict[str, float]:
    """The values that differ by more than their tolerance."""
    found = apart(outcome(cell, fast), outcome(cell, Plain))
    return {name: by for name, by in found.items() if not by <= limit(cell, name)}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_fast_engine_equals_the_plain_one(cell: Cell) -> None:
    assert not differences(cell)


# ---- planted bugs: one in the fast engine at a time, and the cell that must see it

FULL, DORA, NARROW = Cell(dropout=0.2), Cell("dora", dropout=0.2), Cell(bf16=True)
# Places of the arguments as the calls in mtbert/fast/cpu order them.
IN_A_CALL: dict[str, tuple[Cell, str, int, Callable[[Any], Any]]] = {
    "norm without bias in bf16": (NARROW, "residual_norm", 3, lambda _: None),
    "norm without factor": (DORA, "residual_norm", 2, lambda _: None),
    "norm without dropout": (FULL, "residual_norm", 4, lambda _: None),
    "norm without the last row": (FULL, "residual_norm", 10, lambda rows: rows - 1),
    "norm's gradient without dropout": (FULL, "residual_norm_backward", 11, lambda _: None),
    "norm's gradient without bf16's": (NARROW, "residual_norm_backward", 1, lambda _: None),
    "gelu without bias": (FULL, "gelu", 2, lambda _: None),
    "gelu's gradient without factor": (DORA, "gelu_backward", 2, lambda _: None),
    "attention without dropout": (FULL, "attention", 3, lambda _: None),
    "attention with all masks in one place": (FULL, "attention", 7, torch.zeros_like),
    "attention's gradient without dropout": (FULL, "attention_backward", 4, lambda _: None),
    "attention's gradient without bias": (FULL, "attention_backward", 3, lambda _: None),
    "a norm of unscaled B A": (DORA, "dora_norm", 5, lambda _: 1.0),
    "a norm's gradient without the product's": (DORA, "dora_norm_backward", 13, torch.zeros_like),
}


@pytest.mark.parametrize("bug", IN_A_CALL)
def test_the_matrix_notices_a_wrong_kernel(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, name, place, change = IN_A_CALL[bug]
    call = passes.call

    def wrong(called: str, like: Tensor, *arguments: Any) -> None:
        changed = list(arguments)
        if called == name:
            changed[place] = change(changed[place])
            for out in changed[-3:]:  # what a kernel leaves out must not be right by chance
                if isinstance(out, Tensor):
                    out.zero_()
        call(called, like, *changed)

    for module in (passes, attention, adapters):
        monkeypatch.setattr(module, "call", wrong)
    assert differences(cell)


def _first_mask_later(patch: pytest.MonkeyPatch) -> None:
    def mask(dropout: Any, *counts: int) -> Any:
        if dropout.training and dropout.p:
            dropout.noise.claim(1)
        return passes.mask(dropout, *counts)

    patch.setattr(encoder, "mask", mask)


def _row_missing(patch: pytest.MonkeyPatch) -> None:
    whole = embedding.TableGradient.accumulate
    patch.setattr(embedding.TableGradient, "accumulate", lambda self, ids, grad: whole(self, ids[1:], grad[1:]))


def _rows_of_this_step_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        adamw.AdamW, "_rows", lambda self, weight: _used(self._table) if weight is self._table.weight else None
    )


def _used(table: Any) -> Any:
    used = table.used_rows()
    return None if used is None else used.unique().numpy()


def _stale_copies(patch: pytest.MonkeyPatch) -> None:
    of, elsewhere = narrow.NarrowCopy.of, []

    def clone(self: narrow.NarrowCopy, weight: Tensor) -> Tensor:
        elsewhere.append(of(self, weight).clone())
        return elsewhere[-1]

    patch.setattr(narrow.NarrowCopy, "of", clone)


ELSEWHERE: dict[str, tuple[Cell, Callable[[pytest.MonkeyPatch], None]]] = {
    "dropout masks out of order": (FULL, _first_mask_later),
    "a row missing in the table's gradient": (FULL, _row_missing),
    "rows that occurred before are not updated": (FULL, _rows_of_this_step_only),
    "stale bf16 copies": (NARROW, _stale_copies),
    "half of a PAL": (
        Cell("pal", train_rest=False),
        lambda patch: patch.setattr(
            passes.States, "plus", lambda x, added: passes.States(x.wide + added / 2, x.narrow)
        ),
    ),
    "optimizer with another epsilon": (FULL, lambda patch: patch.setitem(adamw.ADAMW, "eps", 1e-5)),
}


@pytest.mark.parametrize("bug", ELSEWHERE)
def test_the_matrix_notices_a_bug_between_the_kernels(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, plant = ELSEWHERE[bug]
    right = outcome(cell, Plain)
    plant(monkeypatch)
    found = apart(outcome(cell, fast), right)
    assert any(not by <= limit(cell, name) for name, by in found.items())


# ---- sizes and lengths

SIZES = [  # heads of each width that the kernels take
    BertConfig(vocabulary=40, positions=140, layers=1, hidden=16, heads=1, intermediate=16),
    BertConfig(vocabulary=40, positions=140, layers=2, hidden=96, heads=3, intermediate=48),
    BertConfig(vocabulary=40, positions=140, layers=1, hidden=128, heads=2, intermediate=208),
]
LENGTHS = st.lists(st.integers(1, 40) | st.integers(1, 130), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.sampled_from(SIZES), st.sampled_from([1, 16]), st.booleans(), st.sampled_from([0.0, 0.2]))
def test_any_batch_and_size(lengths: list[int], config: BertConfig, multiple: int, first_only: bool, p: float) -> None:
    """States and all gradients of an encoder, with filler, for sequences of one token to more than a kernel's tile."""
    model = tiny_model("mean", config=config, dropout=p)
    rng = np.random.default_rng(lengths)
    stream = lay_out([(rng.integers(3, 40, n), rng.integers(1, n + 1)) for n in lengths], multiple)
    found = []
    for engine in (fast(model, Cell().compute()), Plain(model, Cell().compute())):
        model.zero_grad(set_to_none=True)
        model.train().reseed(1, 2)
        states = engine.encode(stream, first_only)[: len(lengths) if first_only else stream.tokens]
        to_scalar = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
        (states * to_scalar).sum().backward()
        gradients = {name: weight.grad for name, weight in model.encoder.named_parameters() if weight.grad is not None}
        # A bias of the keys adds the same to all scores of a query: its gradient is zero, and what is computed is rounding.
        gradients = {name: grad for name, grad in gradients.items() if not name.endswith("key.bias")}
        found.append({"states": states.detach()} | {name: grad.clone() for name, grad in gradients.items()})
    assert all(by <= 1e-4 for by in apart(*found).values())
