"""Our AdamW against torch's: the same weights step by step, resumed or not."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from mtbert.fast.cpu import build
from mtbert.fast.cpu.adamw import AdamW
from mtbert.fast.cpu.embedding import TableGradient
from mtbert.fast.cpu.narrow import Copies

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason="needs g++")

RATES = {"rest": 1e-2, "adapter": 3e-2}
SHAPES = {
    "none": (),
    "one": (1,),
    "fifteen": (15,),
    "sixteen": (16,),
    "seventeen": (17,),
    "many": (40001,),
    "adapter_a": (3, 17),
    "adapter_magnitude": (40,),
    "matrix": (33, 31),
}


class Parts(nn.Module):
    """Tensors of odd sizes, some of an adapter, a matrix with a bf16 copy, and a token table."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))
        self.table = nn.Parameter(torch.randn(50, 24, generator=generator))
        self.gradient, self.copies = TableGradient(self.table), Copies()

    def groups(self) -> list[dict[str, object]]:
        parts = {name: name.partition("_")[0] for name, _ in self.named_parameters()}
        return [
            {"params": [w for n, w in self.named_parameters() if (parts[n] == "adapter") == (kind == "adapter")], "lr": r}
            for kind, r in RATES.items()
        ]  # fmt: skip

    def ours(self) -> AdamW:
        return AdamW(self.groups(), self.copies, self.gradient)

    def torchs(self, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, fused=fused)

    def look_up(self, ids: list[int], factors: Tensor | float) -> None:
        (self.gradient.lookup(torch.tensor(ids)) * factors).sum().backward()


def give_gradients(model: Parts, step: int, bf16: bool = False) -> None:
    """Gradients that depend on the step only: of all magnitudes, none for some tensors, and only some rows of the table."""
    generator = torch.Generator().manual_seed(step)
    for n, (name, shape) in enumerate(SHAPES.items()):
        weight = model.get_parameter(name)
        gradient = torch.randn(shape, generator=generator) * 10.0 ** (-(n + step) % 7)
        if (n + step) % 5:
            rounded = gradient.bfloat16() if bf16 else gradient
            weight.grad = rounded if weight.grad_dtype is None else rounded.float()
    ids = torch.randint(0, 50 if step > 20 else 9, (7,), generator=generator)
    model.look_up(ids.tolist(), torch.randn(7, 24, generator=generator))


def run(model: Parts, optimizer: torch.optim.Optimizer, steps: range, bf16: bool = False) -> None:
    for step in steps:
        give_gradients(model, step, bf16)
        optimizer.step()
        model.zero_grad(set_to_none=True)


def state_of(model: Parts, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
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
def test_fifty_steps_are_torch_s(fused: bool, bf16: bool) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = ours.ours(), theirs.torchs(fused)
    for step in range(50):
        run(ours, mine, range(step, step + 1), bf16)
        run(theirs, its, range(step, step + 1), bf16)
        found, expected = state_of(ours, mine), state_of(theirs, its)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            size = float(tensor.abs().max().clamp_min(1e-30))
            torch.testing.assert_close(found[name], tensor, atol=1e-6 * size, rtol=1e-6, msg=f"{name}, step {step}")
    assert all(
        not torch.equal(moved, start) for moved, start in zip(ours.parameters(), Parts().parameters(), strict=True)
    )


@pytest.mark.parametrize(("what", "group"), [("eps", 0), ("betas", 0), ("lr", 0), ("lr", 1)])
def test_the_comparison_notices_another_setting(what: str, group: int) -> None:
    ours, theirs = Parts(), Parts()
    mine, its = ours.ours(), theirs.torchs()
    mine.param_groups[group][what] = {"eps": 1e-5, "betas": (0.9, 0.99), "lr": 1.001 * list(RATES.values())[group]}[
        what
    ]
    run(ours, mine, range(10))
    run(theirs, its, range(10))
    name = ("many", "adapter_magnitude")[group]
    assert float((ours.get_parameter(name) - theirs.get_parameter(name)).detach().abs().max()) > 1e-5


@pytest.mark.parametrize("setting", ["weight_decay", "amsgrad", "maximize"])
def test_settings_that_the_kernel_lacks_are_refused(setting: str) -> None:
    model = Parts()
    optimizer = model.ours()
    optimizer.param_groups[0][setting] = 1
    with pytest.raises(ValueError, match="the kernel has no weight_decay, amsgrad or maximize"):
        run(model, optimizer, range(1))


@pytest.mark.parametrize("used_before", [False, True], ids=["new", "with another past"])
@pytest.mark.parametrize("at", [1, 25])
def test_resumed_from_its_state_dict_it_ends_in_the_same_bits(at: int, used_before: bool) -> None:
    whole, second = Parts(), Parts()
    through, optimizer = whole.ours(), second.ours()
    run(whole, through, range(at))
    if used_before:
        run(second, optimizer, range(3))
    second.load_state_dict(whole.state_dict())
    optimizer.load_state_dict(deepcopy(through.state_dict()))
    run(whole, through, range(at, 40))
    run(second, optimizer, range(at, 40))
    assert same_bits(state_of(second, optimizer), state_of(whole, through))


def test_rows_that_never_occurred_stay_and_those_that_did_keep_moving() -> None:
    ours, theirs = Parts(), Parts()
    mine, its = ours.ours(), theirs.torchs()
    start = before = ours.table.detach().clone()
    for step in range(5):
        for model, optimizer in ((ours, mine), (theirs, its)):
            model.look_up([3 if step == 0 else 8], 1.0)
            optimizer.step()
            model.zero_grad(set_to_none=True)
        torch.testing.assert_close(ours.table, theirs.table, atol=1e-7, rtol=1e-6)
        if step:
            assert bool((ours.table[3] != before[3]).all()), "its moments carry it on"
        before = ours.table.detach().clone()
    untouched = [row for row in range(50) if row not in (3, 8)]
    assert torch.equal(ours.table[untouched], start[untouched])


def test_a_row_with_a_zero_second_moment_is_updated_after_a_resume() -> None:
    """1e-25 squared is zero, but 1e-25 is not."""
    ends = []
    for resumed in (False, True):
        model = Parts()
        optimizer = model.ours()
        for step, (row, size) in enumerate([(3, 1e-25), (8, 1.0), (8, 1.0)]):
            if resumed and step == 1:
                known = deepcopy(optimizer.state_dict())
                optimizer = model.ours()
                optimizer.load_state_dict(known)
            model.look_up([row], size)
            optimizer.step()
            model.zero_grad(set_to_none=True)
        ends.append(state_of(model, optimizer))
    assert same_bits(*ends)


def test_a_table_with_another_gradient_is_updated_in_all_rows() -> None:
    ours, theirs = Parts(), Parts()
    mine, its = ours.ours(), theirs.torchs()
    for step in range(3):
        for model, optimizer in ((ours, mine), (theirs, its)):
            run(model, optimizer, range(step, step + 1))
            model.table.grad = torch.full((50, 24), 0.5)
            optimizer.step()
            model.zero_grad(set_to_none=True)
    torch.testing.assert_close(ours.table, theirs.table, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("layout", ["transposed", "a part"])
def test_gradients_that_are_not_contiguous(layout: str) -> None:
    """torch's own fused kernel reads them as if they were."""
    gradient = torch.randn(31, 33).T if layout == "transposed" else torch.randn(33, 62)[:, ::2]
    ours, theirs = Parts(), Parts()
    for model, optimizer in ((ours, ours.ours()), (theirs, theirs.torchs(fused=False))):
        for _ in range(3):
            model.matrix.grad = gradient
            optimizer.step()
    torch.testing.assert_close(ours.matrix, theirs.matrix, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16 gradients"])
def test_a_weight_s_bf16_copy_is_its_cast_after_each_step(bf16: bool) -> None:
    model = Parts()
    optimizer = model.ours()
    kept = model.copies.of([model.matrix])
    for step in range(10):
        run(model, optimizer, range(step, step + 1), bf16)
        assert torch.equal(kept, model.matrix.bfloat16()), "before anybody asks for it"
        assert model.copies.of([model.matrix]) is kept


def test_its_changes_are_counted() -> None:
    """So that torch refuses a backward through weights that have changed."""
    model = Parts()
    optimizer = model.ours()
    for kept in (False, True):
        if kept:
            model.copies.of([model.matrix])
        loss = model.matrix.square().sum()
        run(model, optimizer, range(1, 3))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_results_do_not_depend_on_the_threads() -> None:
    ends = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = Parts()
            optimizer = model.ours()
            run(model, optimizer, range(5))
            ends.append(state_of(model, optimizer))
    finally:
        torch.set_num_threads(1)
    assert all(same_bits(ends[0], end) for end in ends[1:])
