"""Pooling against the plain definition, sequence by sequence, and against sentence-transformers."""

import importlib
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.data.tokens import Block, lay_out
from mtbert.model.pooling import POOLINGS, pool_segments

LENGTHS = [4, 1, 7, 4, 2, 7, 7]
NAIVE = {"cls": lambda x: x[0], "mean": lambda x: x.sum(0) / len(x), "max": lambda x: x.max(0).values}


def states() -> tuple[Tensor, tuple[Block, ...], list[Tensor]]:
    """States in stream order, the stream's blocks, and the states of each sequence in the caller's order."""
    stream = lay_out([(np.ones(length, int), length) for length in LENGTHS])
    x_TD = torch.randn(stream.tokens, 5, generator=torch.Generator().manual_seed(0)) - 3
    parts = x_TD.split(sorted(LENGTHS))
    return x_TD[:], stream.blocks, [parts[place] for place in stream.rank.tolist()]


@pytest.mark.parametrize("name", POOLINGS)
def test_each_sequence_by_itself(name: str) -> None:
    x_TD, blocks, parts = states()
    rank = lay_out([(np.ones(length, int), length) for length in LENGTHS]).rank
    expected = torch.stack([NAIVE[name](part) for part in parts])
    torch.testing.assert_close(POOLINGS[name](x_TD, blocks)[rank], expected)


@pytest.mark.parametrize("name", POOLINGS)
def test_equals_sentence_transformers(name: str) -> None:
    pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases have moved the module, older ones have it only here
        pooling = importlib.import_module("sentence_transformers.models").Pooling
    x_TD, blocks, parts = states()
    rank = lay_out([(np.ones(length, int), length) for length in LENGTHS]).rank
    mask = torch.tensor([[1] * length + [0] * (max(LENGTHS) - length) for length in LENGTHS])
    features = {"token_embeddings": torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), "attention_mask": mask}
    theirs = pooling(5, pooling_mode=name)(features)["sentence_embedding"]
    torch.testing.assert_close(POOLINGS[name](x_TD, blocks)[rank], theirs)


@pytest.mark.parametrize("name", POOLINGS)
def test_segments_are_blocks_and_filler_has_no_part(name: str) -> None:
    """With the gradient: rows behind the last sequence get none."""
    x_TD, blocks, _ = states()
    filled = torch.cat((x_TD, torch.full((3, 5), 1e9))).requires_grad_()
    plain = x_TD.clone().requires_grad_()
    offsets = torch.tensor([0, *np.cumsum(sorted(LENGTHS))], dtype=torch.int32)
    found, expected = pool_segments(name, filled, offsets), POOLINGS[name](plain, blocks)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for pooled in (found, expected):
        (pooled * weights).sum().backward()
    assert filled.grad is not None and plain.grad is not None
    torch.testing.assert_close(filled.grad[: len(x_TD)], plain.grad)
    assert not filled.grad[len(x_TD) :].any()
