"""Pooling against the plain definition, sequence by sequence."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.data.tokens import TokenStream, lay_out
from mtbert.model.pooling import POOLINGS, pool

LENGTHS = [4, 1, 7, 4, 2, 7, 7]
NAIVE = {"cls": lambda x: x[0], "mean": lambda x: x.sum(0) / len(x), "max": lambda x: x.max(0).values}


def states(multiple: int = 1) -> tuple[Tensor, TokenStream]:
    """States in stream order, huge in the filler, and the stream."""
    stream = lay_out([(np.ones(length, int), length) for length in LENGTHS], multiple)
    x_TD = torch.randn(stream.tokens, 5, generator=torch.Generator().manual_seed(0)) - 3
    filler = torch.full((len(stream.ids) - stream.tokens, 5), 1e9)
    return torch.cat((x_TD, filler)).requires_grad_(), stream


@pytest.mark.parametrize("multiple", [1, 16], ids=["bare", "with filler"])
@pytest.mark.parametrize("name", POOLINGS)
def test_equals_the_definition_for_each_sequence(name: str, multiple: int) -> None:
    """With gradients; rows after the last sequence have none."""
    x_TD, stream = states(multiple)
    found = pool(name, x_TD, stream)
    parts = x_TD[: stream.tokens].split(stream.offsets.diff().tolist())
    expected = torch.stack([NAIVE[name](part) for part in parts])
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((pooled * weights).sum(), x_TD)[0] for pooled in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][stream.tokens :].any()
