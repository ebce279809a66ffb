"""The reused gradient of the token table equals that of nn.Embedding in every step."""

import pytest
import torch
from torch import nn

from mtbert.fast.cpu.embedding import TableGradient

BATCHES = [[3, 3, 1], [0, 9], [3, 9, 9, 9], [5], [0, 1, 2, 3]]


class Pair:
    """The same table twice: for our lookup and for torch's."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.theirs = nn.Parameter(torch.randn(10, 4, dtype=dtype))
        self.ours = nn.Parameter(self.theirs.detach().clone())
        self.table = TableGradient(self.ours)

    def backward(self, ids: list[int], seed: int) -> None:
        factors = torch.randn(len(ids), 4, generator=torch.Generator().manual_seed(seed)).to(self.ours.dtype)
        (self.table.lookup(torch.tensor(ids)) * factors).sum().backward()
        (self.theirs[torch.tensor(ids)] * factors).sum().backward()
        self.check()

    def check(self) -> None:
        assert self.ours.grad is not None and self.theirs.grad is not None
        torch.testing.assert_close(self.ours.grad, self.theirs.grad)
        if (rows := self.table.used_rows()) is not None:
            unused = torch.ones(10, dtype=torch.bool).index_fill(0, rows, False)
            assert not self.ours.grad[unused].any()

    def zero(self, set_to_none: bool = True) -> None:
        torch.optim.SGD([self.ours, self.theirs]).zero_grad(set_to_none)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_over_steps(set_to_none: bool, dtype: torch.dtype) -> None:
    pair = Pair(dtype)
    for step, ids in enumerate(BATCHES):
        pair.backward(ids, step)
        if set_to_none:
            assert pair.table.used_rows().unique().tolist() == sorted(set(ids))  # type: ignore[union-attr]
        pair.zero(set_to_none)


def test_gradients_add_up_until_they_are_reset() -> None:
    pair = Pair()
    for step, ids in enumerate(BATCHES):
        pair.backward(ids, step)
    # Two lookups in one graph, and a gradient from elsewhere.
    pair.ours.grad, pair.theirs.grad = torch.full((10, 4), 0.5), torch.full((10, 4), 0.5)
    assert pair.table.used_rows() is None
    for look in (pair.table.lookup, lambda ids: pair.theirs[ids]):
        (look(torch.tensor([1, 2])).sum() + look(torch.tensor([2, 7])).square().sum()).backward()
    pair.check()
    pair.zero()
    pair.backward([4], 9)


def test_a_frozen_table_and_one_in_inference() -> None:
    pair = Pair()
    with torch.inference_mode():
        assert torch.equal(pair.table.lookup(torch.tensor([1])), pair.theirs[1:2])
    pair.ours.requires_grad_(False)
    assert not pair.table.lookup(torch.tensor([1])).requires_grad
