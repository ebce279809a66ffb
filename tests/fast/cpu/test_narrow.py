"""bf16 copies of weights follow every change, are cached only where that is safe, and train like nn.Linear."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtbert.data.batches import make_batch
from mtbert.fast.cpu import build
from mtbert.fast.cpu.engine import CpuEngine
from mtbert.fast.cpu.narrow import Copies, NarrowProduct
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.losses import binary_cross_entropy
from mtbert.training.compute import Compute
from mtbert.training.recipe import Recipe
from tests.tiny import WRAPPER, tiny_model, tiny_split


def weights(count: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(count)
    return [nn.Parameter(torch.randn(4 + n, 6, generator=generator)) for n in range(count)]


def cast(of: list[nn.Parameter]) -> Tensor:
    return torch.cat([weight.detach().bfloat16() for weight in of])


def trusting() -> Copies:
    copies = Copies()
    copies.trust()
    return copies


CHANGES: dict[str, Callable[[nn.Parameter], object]] = {
    "in place": lambda weight: weight.mul_(2),
    "a row": lambda weight: weight[1].fill_(7),
    "copied into": lambda weight: weight.copy_(torch.randn(weight.shape)),
    "through a view": lambda weight: weight.view(-1)[3:5].zero_(),
    "detached": lambda weight: weight.detach().add_(1),
}


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_copies_follow_every_change_that_torch_counts(change: str, place: int) -> None:
    for copies in (Copies(), trusting()):
        group = weights()
        before = copies.of(group).clone()
        assert torch.equal(before, cast(group))
        with torch.no_grad():
            CHANGES[change](group[place])
        assert torch.equal(copies.of(group), cast(group))
        assert not torch.equal(copies.of(group), before)


def test_a_cached_copy_is_made_once_for_several_weights() -> None:
    group, copies = weights(), Copies()
    assert copies.of(group) is not copies.of(group), "torch's own optimizers do not count their changes"
    copies.trust()
    all_ = copies.of(group)
    assert copies.of(group) is all_
    known = copies.kept(group[0])
    assert known is not None and all(copies.kept(weight) is known for weight in group)
    assert torch.equal(torch.cat([known.of(weight) for weight in group]), cast(group))
    assert known.of(group[1]).data_ptr() == all_[len(group[0]) :].data_ptr(), "parts of one"


def test_trust_drops_older_copies() -> None:
    """The weights may have changed uncounted since."""
    group, copies = weights(), trusting()
    copies.of(group)
    group[0].data.add_(1)
    assert not torch.equal(copies.of(group), cast(group)), "it is uncounted indeed"
    copies.trust()
    assert torch.equal(copies.of(group), cast(group))


def test_unchanged_caches_copies_and_drops_them_even_after_an_error() -> None:
    group, copies = weights(), Copies()
    with pytest.raises(KeyboardInterrupt), copies.unchanged():
        assert copies.of(group) is copies.of(group)
        raise KeyboardInterrupt
    assert copies.kept(group[0]) is None
    assert copies.of(group) is not copies.of(group)
    group[0].data.add_(1)  # uncounted
    with copies.unchanged():
        assert torch.equal(copies.of(group), cast(group))


def test_copies_made_in_inference_mode_serve_training() -> None:
    group, copies = weights(1), trusting()
    with torch.inference_mode():
        kept = copies.of(group)
    NarrowProduct.apply(torch.randn(3, 6, dtype=torch.bfloat16), copies.of(group), *group).sum().backward()
    assert copies.of(group) is kept and group[0].grad is not None


def test_weights_made_in_inference_mode() -> None:
    """torch does not count their changes."""
    with torch.inference_mode():
        group, copies = weights(1), Copies()
        with copies.unchanged():
            for _ in range(2):
                assert torch.equal(copies.of(group), cast(group))
                group[0].add_(1)


def test_weights_changed_before_the_backward_are_an_error_as_in_nn_linear() -> None:
    group, x = weights(1), torch.randn(5, 6, dtype=torch.bfloat16, requires_grad=True)
    y = NarrowProduct.apply(x, Copies().of(group), *group)
    with torch.no_grad():
        group[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---- a whole engine


def trained(steps: int = 3) -> tuple[MultitaskModel, CpuEngine]:
    model = tiny_model(dropout=0.0)
    engine = CpuEngine(model, Compute(torch.device("cpu"), True))
    model.engine = engine
    engine.optimizer(Recipe("sequential", 1, 1, 8, 1e-2))
    split = tiny_split("quora", 8)
    for step in range(steps):
        batch = make_batch("quora", split, np.arange(8), model.views("quora"), WRAPPER)
        engine.step(batch, binary_cross_entropy, 0, step)
    return model, engine


def scores(model: MultitaskModel, engine: CpuEngine) -> Tensor:
    batch = make_batch("quora", tiny_split("quora", 8), np.arange(8), model.views("quora"), WRAPPER)
    with engine.inference():
        return model.eval()(batch).clone()


needs_kernels = pytest.mark.skipif(bool(build.unavailable()), reason="needs g++")


@needs_kernels
def test_the_optimizer_updates_the_copies() -> None:
    model, engine = trained()
    copies, found = engine._products.copies, 0
    for name, weight in model.named_parameters():
        known = copies.kept(weight)
        assert (known is not None) == ("layers" in name and name.endswith("weight") and "norm" not in name), name
        if known is not None:
            found += 1
            assert torch.equal(known.of(weight), weight.bfloat16()), name
            assert known._seen[known._place(weight)] == weight._version, name
    assert found == 12


@needs_kernels
@pytest.mark.parametrize("how", ["loaded", "another optimizer's steps"])
def test_changes_by_others_than_the_optimizer_renew_the_copies(how: str) -> None:
    model, engine = trained()
    if how == "loaded":
        model.load_state_dict(tiny_model(seed=9).state_dict())
    else:
        for weight in model.parameters():
            weight.data.mul_(1.5)  # uncounted
        engine.optimizer(Recipe("sequential", 1, 1, 8, 1e-2))
    fresh = tiny_model()
    fresh.load_state_dict(model.state_dict())
    fresh.engine = other = CpuEngine(fresh, engine.compute)
    assert torch.equal(scores(model, engine), scores(fresh, other))
