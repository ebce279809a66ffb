"""Our AdamW against torch's: the same weights step by step, resumed or not, with our kernel and without."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mtbert.kernels import build
from mtbert.model import narrow
from mtbert.model.embedding import TokenEmbedding
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_dora
from mtbert.training.adamw import AdamW
from mtbert.training.checkpoint import load_checkpoint, save_checkpoint

RATE = 1e-2
SHAPES = {
    "none": (),
    "one": (1,),
    "fifteen": (15,),
    "sixteen": (16,),
    "seventeen": (17,),
    "many": (40001,),
    "layer_lora_a": (3, 17),
    "layer_magnitude": (40,),
    "matrix": (33, 31),
}
NAMES = ("many", "layer_magnitude")  # of either group


class Parts(nn.Module):
    """Tensors of odd sizes, some of an adapter, a matrix with a bf16 copy, and a token table."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))
        self.table = TokenEmbedding(50, 24)
        self.table.weight.data = torch.randn(50, 24, generator=generator)


def torchs(model: nn.Module, fused: bool, adapter_rate: float = RATE) -> torch.optim.Optimizer:
    adapter = [weight for name, weight in model.named_parameters() if name.startswith("layer_")]
    rest = [weight for name, weight in model.named_parameters() if not name.startswith("layer_")]
    groups = [{"params": rest, "lr": RATE}, {"params": adapter, "lr": adapter_rate}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, fused=fused)


def give_gradients(model: Parts, step: int, bf16: bool = False) -> None:
    """The same for the same step: of all sizes, none for some tensors, and of a few rows for the table."""
    generator = torch.Generator().manual_seed(step)
    for n, name in enumerate(SHAPES):
        weight = model.get_parameter(name)
        gradient = torch.randn(weight.shape, generator=generator) * 10.0 ** (-(n + step) % 7)
        if (n + step) % 5:
            weight.grad = None
            rounded = gradient.bfloat16()
            weight.grad = rounded if bf16 and weight.grad_dtype is None else rounded.float() if bf16 else gradient
    ids = torch.randint(0, 50 if step > 20 else 9, (7,), generator=generator)
    rows = torch.randn(7, 24, generator=generator)
    (model.table(ids) * rows).sum().backward()


def zero(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def run(model: Parts, optimizer: torch.optim.Optimizer, steps: range, bf16: bool = False) -> None:
    for step in steps:
        give_gradients(model, step, bf16)
        optimizer.step()
        zero(model)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and the optimizer's state."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        found |= {f"{names[parameter]}.{key}": value.clone() for key, value in state.items()}
    return found


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16 gradients"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("adapter_rate", [None, 10 * RATE], ids=["one rate", "two rates"])
def test_fifty_steps_are_torch_s(way: str, adapter_rate: float | None, fused: bool, bf16: bool) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = AdamW(ours, RATE, adapter_rate), torchs(theirs, fused, adapter_rate or RATE)
    for step in range(50):
        run(ours, mine, range(step, step + 1), bf16)
        run(theirs, its, range(step, step + 1), bf16)
        expected = state_of(theirs, its)
        found = state_of(ours, mine)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            size = float(tensor.abs().max().clamp_min(1e-30))
            torch.testing.assert_close(found[name], tensor, atol=1e-6 * size, rtol=1e-6, msg=f"{name}, step {step}")
    assert all(
        not torch.equal(moved, start) for moved, start in zip(ours.parameters(), Parts().parameters(), strict=True)
    )


def test_an_adapter_s_own_parameters_have_its_rate_and_no_others(make_model: Callable[..., MultitaskModel]) -> None:
    """A first step of AdamW moves each weight by its rate."""
    model = make_model(dropout=0.0, head_dropout=0.0)
    add_dora(model, rank=2, alpha=2.0, dropout=0.0, train_rest=True, exact_norm=True, seed=0)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    optimizer = AdamW(model, 1e-3, 1e-2)
    for weight in trained.values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    moved = {name: float((before[name] - weight.detach()).mean()) for name, weight in trained.items()}
    parts = {"magnitude", "lora_a", "lora_b"}
    assert {name.rpartition(".")[2] for name in moved} > parts
    for name, by in moved.items():
        assert by == pytest.approx(1e-2 if name.rpartition(".")[2] in parts else 1e-3, rel=1e-2), name


@pytest.mark.parametrize(("what", "group"), [("eps", 0), ("betas", 0), ("lr", 0), ("lr", 1)])
def test_the_comparison_sees_another_setting(way: str, what: str, group: int) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = AdamW(ours, RATE, 2 * RATE), torchs(theirs, True, 2 * RATE)
    mine.param_groups[group][what] = {"eps": 1e-5, "betas": (0.9, 0.99), "lr": RATE * 1.001}[what]
    run(ours, mine, range(10))
    run(theirs, its, range(10))
    one, other = ours.get_parameter(NAMES[group]), theirs.get_parameter(NAMES[group])
    assert float((one - other).detach().abs().max()) > 1e-5


def test_an_infinite_loss_leaves_every_bit(way: str) -> None:
    model = Parts()
    optimizer = AdamW(model, RATE)
    run(model, optimizer, range(6))
    before = state_of(model, optimizer)
    give_gradients(model, 6)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    zero(model)
    assert same_bits(state_of(model, optimizer), before)
    optimizer.found_inf = torch.tensor(0.0)
    run(model, optimizer, range(7, 8))
    other = Parts()
    undisturbed = AdamW(other, RATE)
    run(other, undisturbed, range(6))
    run(other, undisturbed, range(7, 8))
    assert same_bits(state_of(model, optimizer), state_of(other, undisturbed)), "as if that step had not been"


@pytest.mark.parametrize("at", [1, 12, 25])
def test_resumed_from_a_checkpoint_it_ends_in_the_same_bits(way: str, at: int, tmp_path: Path) -> None:
    whole = Parts()
    through = AdamW(whole, RATE, 3 * RATE)
    run(whole, through, range(40))
    first = Parts()
    optimizer = AdamW(first, RATE, 3 * RATE)
    run(first, optimizer, range(at))
    save_checkpoint(tmp_path, first, optimizer, at, {})
    second = Parts()
    optimizer = AdamW(second, RATE, 3 * RATE)
    assert load_checkpoint(tmp_path, second, optimizer) == (at, {})
    run(second, optimizer, range(at, 40))
    assert same_bits(state_of(second, optimizer), state_of(whole, through))


@pytest.mark.parametrize("used_before", [False, True], ids=["new", "with another past"])
def test_its_state_dict_carries_all_that_it_knows(way: str, used_before: bool) -> None:
    whole, second = Parts(), Parts()
    through, optimizer = AdamW(whole, RATE), AdamW(second, RATE)
    run(whole, through, range(25))
    if used_before:
        run(second, optimizer, range(3))
    second.load_state_dict(whole.state_dict())
    optimizer.load_state_dict(deepcopy(through.state_dict()))
    run(whole, through, range(25, 40))
    run(second, optimizer, range(25, 40))
    assert same_bits(state_of(second, optimizer), state_of(whole, through))


def test_rows_that_never_occurred_stay_and_those_that_did_once_move_on(way: str) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = AdamW(ours, RATE), torchs(theirs, True)
    start = before = ours.table.weight.detach().clone()
    rows = torch.ones(1, 24)
    for step in range(5):
        ids = torch.tensor([3 if step == 0 else 8])
        for model, optimizer in ((ours, mine), (theirs, its)):
            (model.table(ids) * rows).sum().backward()
            optimizer.step()
            zero(model)
        torch.testing.assert_close(ours.table.weight, theirs.table.weight, atol=1e-7, rtol=1e-6)
        if step:
            assert bool((ours.table.weight[3] != before[3]).all()), "its moments carry it on"
        before = ours.table.weight.detach().clone()
    untouched = [row for row in range(50) if row not in (3, 8)]
    assert torch.equal(ours.table.weight[untouched], start[untouched])


def test_a_row_whose_squares_are_too_small_is_not_forgotten(way: str) -> None:
    """After a resume as before it: 1e-25 squared is zero, 1e-25 is not."""
    models, ends = [Parts(), Parts()], []
    for model, resumed in zip(models, (False, True), strict=True):
        optimizer = AdamW(model, RATE)
        for step, (row, size) in enumerate([(3, 1e-25), (8, 1.0), (8, 1.0)]):
            if resumed and step == 1:
                known = deepcopy(optimizer.state_dict())
                optimizer = AdamW(model, RATE)
                optimizer.load_state_dict(known)
            (model.table(torch.tensor([row])) * size).sum().backward()
            optimizer.step()
            zero(model)
        ends.append(state_of(model, optimizer))
    assert same_bits(*ends)


def test_a_table_whose_gradient_comes_another_way_is_updated_whole(way: str) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = AdamW(ours, RATE), torchs(theirs, True)
    for step in range(3):
        run(ours, mine, range(step, step + 1))
        run(theirs, its, range(step, step + 1))
        for model, optimizer in ((ours, mine), (theirs, its)):
            model.table.weight.grad = torch.full((50, 24), 0.5)
            optimizer.step()
            zero(model)
    torch.testing.assert_close(ours.table.weight, theirs.table.weight, atol=1e-7, rtol=1e-6)


@pytest.mark.skipif(not build.available(), reason="needs g++")
@pytest.mark.parametrize("layout", ["transposed", "a part"])
def test_gradients_that_do_not_lie_row_by_row(layout: str) -> None:
    """torch's own fused kernel reads them as if they did."""
    torch.manual_seed(0)
    weight, gradient = torch.randn(6, 8), torch.randn(8, 6).T if layout == "transposed" else torch.randn(6, 16)[:, ::2]
    ours, theirs = (nn.ParameterList([nn.Parameter(weight.clone())]) for _ in range(2))
    for model, optimizer in ((ours, AdamW(ours, RATE)), (theirs, torchs(theirs, False))):
        for _ in range(3):
            model[0].grad = gradient
            optimizer.step()
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-7, rtol=1e-6)


@pytest.mark.skipif(not build.available(), reason="needs g++")
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16 gradients"])
def test_a_weight_s_bf16_copy_is_its_cast_after_each_step(bf16: bool) -> None:
    model = Parts()
    optimizer = AdamW(model, RATE)
    kept = narrow.narrow([model.matrix])
    for step in range(10):
        run(model, optimizer, range(step, step + 1), bf16)
        assert torch.equal(kept, model.matrix.bfloat16())
        assert narrow.narrow([model.matrix]) is kept
        assert torch.equal(kept, model.matrix.bfloat16()), "and it did not have to be made again"


@pytest.mark.skipif(not build.available(), reason="needs g++")
def test_its_changes_are_counted() -> None:
    """By which torch refuses a backward through weights that are no more."""
    model = Parts()
    optimizer = AdamW(model, RATE)
    for kept in (False, True):
        if kept:
            narrow.narrow([model.matrix])
        loss = model.matrix.square().sum()
        run(model, optimizer, range(1, 3))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.skipif(not build.available(), reason="needs g++")
def test_results_do_not_depend_on_the_threads() -> None:
    ends = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = Parts()
            optimizer = AdamW(model, RATE)
            run(model, optimizer, range(5))
            ends.append(state_of(model, optimizer))
    finally:
        torch.set_num_threads(1)
    assert all(same_bits(ends[0], end) for end in ends[1:])


def test_frozen_weights_and_those_without_a_gradient_are_left(way: str) -> None:
    model = Parts()
    model.matrix.requires_grad_(False)
    optimizer = AdamW(model, RATE)
    before = state_of(model, optimizer)
    optimizer.step()
    assert same_bits(state_of(model, optimizer), before)
    assert all(model.matrix is not weight for weight in optimizer.param_groups[0]["params"])
