"""The token embedding trains exactly as nn.Embedding does, step after step."""

import copy

import pytest
import torch
from torch import nn

from mtbert.model.embedding import TokenEmbedding

BATCHES = [[3, 3, 1], [0, 9], [3, 9, 9, 9], [5], [0, 1, 2, 3]]


def pair(dtype: torch.dtype = torch.float32) -> tuple[TokenEmbedding, nn.Embedding]:
    torch.manual_seed(0)
    ours, theirs = TokenEmbedding(10, 4).to(dtype), nn.Embedding(10, 4).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def backward(layer: nn.Embedding, ids: list[int], seed: int) -> None:
    factors = torch.randn(len(ids), 4, generator=torch.Generator().manual_seed(seed)).to(layer.weight.dtype)
    (layer(torch.tensor(ids)) * factors).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_over_steps(set_to_none: bool, dtype: torch.dtype) -> None:
    ours, theirs = pair(dtype)
    for step, ids in enumerate(BATCHES):
        for layer in (ours, theirs):
            backward(layer, ids, step)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
        for layer in (ours, theirs):
            layer.zero_grad(set_to_none=set_to_none)


def test_gradients_add_up_until_they_are_reset() -> None:
    ours, theirs = pair()
    for step, ids in enumerate(BATCHES):
        for layer in (ours, theirs):
            backward(layer, ids, step)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    # Two lookups in one graph, and a gradient from elsewhere.
    for layer in (ours, theirs):
        layer.weight.grad = torch.full((10, 4), 0.5)
        (layer(torch.tensor([1, 2])).sum() + layer(torch.tensor([2, 7])).square().sum()).backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    for layer in (ours, theirs):
        layer.zero_grad()
        backward(layer, [4], 9)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_an_optimizer_sees_no_difference() -> None:
    ours, theirs = pair()
    layers = [(layer, torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0)) for layer in (ours, theirs)]
    for step, ids in enumerate(BATCHES * 2):
        for layer, optimizer in layers:
            backward(layer, ids, step)
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_a_frozen_or_copied_embedding() -> None:
    ours, _ = pair()
    backward(ours, [1], 0)
    other = copy.deepcopy(ours)
    for layer in (ours, other):
        layer.zero_grad()
        backward(layer, [2], 0)
    assert torch.equal(ours.weight.grad, other.weight.grad)
    assert ours.weight.grad is not other.weight.grad
    ours.weight.requires_grad_(False)
    assert not ours(torch.tensor([1])).requires_grad
    with torch.inference_mode():
        assert torch.equal(other(torch.tensor([1])), other.weight[1:2])
