"""bf16 copies of weights: never other than the weights, kept no longer than somebody answers for them."""

import copy
import gc
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream, lay_out
from mtbert.kernels import build
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.narrow import NarrowProduct, keep, narrow, narrow_copy, unchanged
from mtbert.pretrained.weights import random_weights
from mtbert.training.adamw import AdamW

CONFIG = BertConfig(vocabulary=40, positions=32, layers=2, hidden=32, heads=2, intermediate=64)


class Keeper: ...


def weights(count: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(count)
    return [nn.Parameter(torch.randn(4 + n, 6, generator=generator)) for n in range(count)]


def cast(of: list[nn.Parameter]) -> Tensor:
    return torch.cat([weight.detach().bfloat16() for weight in of])


CHANGES: dict[str, Callable[[nn.Parameter], object]] = {
    "in place": lambda weight: weight.mul_(2),
    "a row": lambda weight: weight[1].fill_(7),
    "copied into": lambda weight: weight.copy_(torch.randn(weight.shape)),
    "initialised": lambda weight: nn.init.normal_(weight),
    "through a view": lambda weight: weight.view(-1)[3:5].zero_(),
    "detached": lambda weight: weight.detach().add_(1),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_copies_follow_every_change_that_torch_counts(change: str, place: int, kept: bool) -> None:
    group, keeper = weights(), Keeper()
    if kept:
        keep(group, keeper)
    before = narrow(group).clone()
    assert torch.equal(before, cast(group))
    with torch.no_grad():
        CHANGES[change](group[place])
    assert torch.equal(narrow(group), cast(group))
    assert not torch.equal(narrow(group), before)


def test_a_kept_copy_is_made_once_and_holds_the_weights_side_by_side() -> None:
    group, keeper = weights(), Keeper()
    assert narrow(group) is not narrow(group), "nobody keeps it"
    keep(group, keeper)
    kept = narrow(group)
    assert narrow(group) is kept
    known = narrow_copy(group[0])
    assert known is not None and all(narrow_copy(weight) is known for weight in group)
    assert torch.equal(torch.cat([known.of(weight) for weight in group]), cast(group))
    assert known.of(group[1]).data_ptr() == kept[len(group[0]) :].data_ptr(), "parts of one"


def test_in_another_company_a_weight_has_another_copy() -> None:
    group, keeper = weights(), Keeper()
    keep(group, keeper)
    for chosen in (group, group[:1], group[::-1], group[1:], group):
        assert torch.equal(narrow(chosen), cast(chosen))
        with torch.no_grad():
            chosen[0].add_(1)
        assert torch.equal(narrow(chosen), cast(chosen))


def test_without_its_keeper_a_copy_counts_no_more() -> None:
    group, keeper = weights(), Keeper()
    keep(group, keeper)
    kept = narrow(group)
    del keeper
    group[0].data.add_(1)  # uncounted
    assert narrow(group) is not kept
    assert torch.equal(narrow(group), cast(group))


def test_one_weight_without_a_keeper_is_enough() -> None:
    group, keeper = weights(), Keeper()
    keep(group[:2], keeper)
    group[2].data.add_(narrow(group)[0, 0])
    assert torch.equal(narrow(group), cast(group))


@pytest.mark.parametrize("again", [True, False], ids=["the next keeper", "unchanged"])
def test_a_new_keeper_does_not_vouch_for_an_old_copy(again: bool) -> None:
    """In between the weights may have changed in ways that nobody counted."""
    layer, keeper = nn.Linear(6, 4), Keeper()
    keep(layer.parameters(), keeper)
    narrow([layer.weight])
    del keeper
    layer.weight.data.add_(1)
    if again:
        keep(layer.parameters(), keeper := Keeper())  # noqa: F841
        assert torch.equal(narrow([layer.weight]), layer.weight.bfloat16())
    else:
        with unchanged(layer):
            assert torch.equal(narrow([layer.weight]), layer.weight.bfloat16())


def test_nor_for_the_copy_of_a_neighbour_that_is_kept_all_along() -> None:
    group, keeper = weights(2), Keeper()
    keep(group[:1], keeper)
    model = nn.ParameterList(group)
    for _ in range(2):
        with unchanged(model):
            assert torch.equal(narrow(group), cast(group))
        group[1].data.add_(1)  # which `keeper` does not answer for


def test_unchanged_makes_copies_once_and_takes_them_away_even_after_a_fault() -> None:
    layer = nn.Linear(6, 4)
    with pytest.raises(KeyboardInterrupt), unchanged(layer):
        assert narrow([layer.weight]) is narrow([layer.weight])
        raise KeyboardInterrupt
    assert not vars(layer.weight) and not vars(layer.bias)
    assert narrow([layer.weight]) is not narrow([layer.weight])


def test_unchanged_leaves_what_an_optimizer_keeps() -> None:
    layer, keeper = nn.Linear(6, 4), Keeper()
    keep([layer.weight], keeper)
    kept = narrow([layer.weight])
    with unchanged(layer):
        assert narrow([layer.weight]) is kept
    assert narrow([layer.weight]) is kept


def test_copies_made_in_inference_mode_serve_training() -> None:
    layer, keeper = nn.Linear(6, 4), Keeper()
    keep([layer.weight], keeper)
    with torch.inference_mode():
        kept = narrow([layer.weight])
    x = torch.randn(3, 6, dtype=torch.bfloat16)
    NarrowProduct.apply(x, narrow([layer.weight]), layer.weight).sum().backward()
    assert narrow([layer.weight]) is kept and layer.weight.grad is not None


def test_weights_made_in_inference_mode() -> None:
    """torch counts no changes of theirs."""
    with torch.inference_mode():
        layer = nn.Linear(6, 4)
        with unchanged(layer):
            for _ in range(2):
                assert torch.equal(narrow([layer.weight]), layer.weight.bfloat16())
                layer.weight.add_(1)


def test_a_copied_model_shares_nothing_and_a_saved_one_takes_nothing_along() -> None:
    layer, keeper = nn.Linear(6, 4), Keeper()
    keep(layer.parameters(), keeper)
    kept = narrow([layer.weight])
    other = copy.deepcopy(layer)
    assert narrow_copy(other.weight) is None
    other.weight.data.add_(1)
    assert torch.equal(narrow([other.weight]), other.weight.bfloat16())
    assert narrow([layer.weight]) is kept
    torch.save(layer, io.BytesIO())
    for attribute in vars(layer.weight).values():
        make, arguments = attribute.__reduce__()
        assert make(*arguments) is None


@pytest.mark.parametrize("frozen", [(), (0,), (1, 2), (0, 1, 2)])
def test_the_product_and_its_gradients(frozen: tuple[int, ...]) -> None:
    group, x = weights(), torch.randn(5, 6, dtype=torch.bfloat16, requires_grad=True)
    for n in frozen:
        group[n].requires_grad_(False)
    grad = torch.randn(5, 15).bfloat16()
    y = NarrowProduct.apply(x, narrow(group), *group)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), x.float() @ cast(group).float().T, atol=0.02, rtol=0.01)
    y.backward(grad)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.float(), grad.float() @ cast(group).float(), atol=0.05, rtol=0.01)
    expected = (grad.float().T @ x.detach().float()).split([4, 5, 6])
    for n, weight in enumerate(group):
        assert (weight.grad is None) == (n in frozen)
        if weight.grad is not None:
            assert weight.grad.dtype == torch.float32, "as a weight's gradient is, unless it allows another type"
            torch.testing.assert_close(weight.grad, expected[n], atol=0.05, rtol=0.01)


def test_weights_changed_before_their_backward_are_refused_as_nn_linear_refuses_them() -> None:
    group, x = weights(1), torch.randn(5, 6, dtype=torch.bfloat16, requires_grad=True)
    y = NarrowProduct.apply(x, narrow(group), *group)
    with torch.no_grad():
        group[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---- a whole encoder

needs_kernels = pytest.mark.skipif(not build.available(), reason="needs g++")


def encoder() -> BertEncoder:
    """Only the weights of products learn, so that the losses tell of nothing else."""
    model = BertEncoder(CONFIG, 0.0)
    model.load_state_dict(random_weights(CONFIG, 0))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers" in name and parameter.dim() == 2)
    return model


@pytest.fixture
def stream() -> TokenStream:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 40, (length,), generator=generator).numpy() for length in (3, 5, 5, 9)]
    return lay_out([(row, len(row)) for row in rows])


def curve(model: BertEncoder, stream: TokenStream, optimizer: torch.optim.Optimizer, steps: int = 15) -> list[float]:
    losses, target = [], torch.randn(stream.tokens, CONFIG.hidden, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (model(stream) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def torchs(model: BertEncoder) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-2, fused=True, weight_decay=0.0, eps=1e-6)


def ours(model: BertEncoder) -> torch.optim.Optimizer:
    return AdamW(model, 1e-2)


def agree(one: list[float], other: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 0.02 * max(other)


@needs_kernels
@pytest.mark.parametrize("make", [torchs, ours])
def test_training_never_meets_a_stale_copy(
    make: Callable[[BertEncoder], torch.optim.Optimizer], stream: TokenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's fused optimizer does not count its changes; the losses are still those of a model without kernels."""
    model = encoder()
    found = curve(model, stream, make(model))
    monkeypatch.setattr(build, "available", lambda: False)
    plain = encoder()
    expected = curve(plain, stream, torchs(plain))
    assert expected[-1] < 0.5 * expected[0], "it learns fast, so that old weights would show"
    assert agree(found, expected)


@needs_kernels
def test_the_comparison_sees_a_stale_copy(stream: TokenStream) -> None:
    good, bad, keeper = encoder(), encoder(), Keeper()
    keep(bad.parameters(), keeper)  # a promise that torch's optimizer breaks
    assert not agree(curve(bad, stream, torchs(bad)), curve(good, stream, torchs(good)))


@needs_kernels
def test_copies_are_those_of_the_weights_after_each_of_our_steps(stream: TokenStream) -> None:
    model = encoder()
    optimizer = ours(model)
    for _ in range(3):
        curve(model, stream, optimizer, steps=1)
        for name, weight in model.named_parameters():
            known = narrow_copy(weight)
            assert (known is not None) == weight.requires_grad, name
            if known is not None:
                assert torch.equal(known.of(weight), weight.bfloat16()), name


@needs_kernels
def test_loaded_weights_are_seen_while_the_optimizer_lives(stream: TokenStream) -> None:
    model = encoder()
    optimizer = ours(model)
    curve(model, stream, optimizer, steps=2)
    model.load_state_dict(random_weights(CONFIG, 1))
    fresh = BertEncoder(CONFIG, 0.0)
    fresh.load_state_dict(random_weights(CONFIG, 1))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(stream), fresh(stream))


@needs_kernels
def test_after_our_optimizer_is_gone_its_copies_are_too(stream: TokenStream) -> None:
    model = encoder()
    curve(model, stream, ours(model), steps=2)
    gc.collect()  # torch's first optimizer may lie in a cycle
    for weight in model.parameters():
        weight.data.mul_(1.5)  # uncounted
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), unchanged(model):
        found = model(stream)
        fresh = BertEncoder(CONFIG, 0.0)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(found, fresh(stream))
