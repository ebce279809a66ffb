"""Grouped attention: the layout covers each token once, the result is plain attention per sequence, the backward its derivative."""

from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtbert.data.tokens import Block
from mtbert.model import attention
from mtbert.model.attention import GroupedAttention, Layout, Ragged, lay_out_groups, lay_out_ragged, ragged_attention

CPU = torch.device("cpu")


def blocks_of(lengths: list[int], filler: int = 0) -> tuple[Block, ...]:
    runs = tuple(Block(len(list(same)), length) for length, same in groupby(sorted(lengths)))
    return (*runs, Block(filler, 1)) if filler else runs


def laid_out(lengths: list[int], filler: int = 0, heads: int = 2) -> Layout:
    return lay_out_groups(blocks_of(lengths, filler), sum(lengths), heads, CPU)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40), st.integers(0, 5))
def test_a_layout_holds_each_real_token_once_and_pads_the_rest(lengths: list[int], filler: int) -> None:
    layout = laid_out(lengths, filler)
    tokens = sum(lengths)
    assert torch.equal(layout.there[layout.back], torch.arange(tokens))
    assert sorted([*layout.back.tolist(), *layout.padding.tolist()]) == list(range(len(layout.there)))
    assert sum(group.n for group in layout.groups) == len(lengths)
    assert layout.weights == sum(group.n * 2 * group.length**2 for group in layout.groups)
    open_keys = [group.mask is None or group.mask == 0 for group in layout.groups]
    seen = [
        keys.view(group.n, -1, group.length)[:, 0].sum(1).tolist()
        if torch.is_tensor(keys)
        else [group.length] * group.n
        for group, keys in zip(layout.groups, open_keys, strict=True)
    ]
    assert [length for group in seen for length in group] == sorted(lengths)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7, unique=True))
def test_no_other_split_into_groups_costs_less(lengths: list[int]) -> None:
    lengths = sorted(lengths)

    def cost(cuts: list[int]) -> int:
        runs = [lengths[a:b] for a, b in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]
        return sum(attention.GROUP + len(run) * run[-1] * (run[-1] + attention.ROW) for run in runs)

    splits = [[i for i in range(1, len(lengths)) if chosen >> (i - 1) & 1] for chosen in range(2 ** (len(lengths) - 1))]
    found = np.cumsum([group.n for group in laid_out(lengths).groups])[:-1].tolist()
    assert cost(found) == min(map(cost, splits))


def plain(qkv: Tensor, lengths: list[int], heads: int) -> Tensor:
    """Attention of one sequence after the other, in torch's own words."""
    mixed = []
    for rows in qkv.split(lengths):
        q, k, v = rows.view(len(rows), 3, heads, -1).permute(1, 2, 0, 3)
        mixed.append(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    return torch.cat(mixed)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 3))
def test_equals_plain_attention_with_its_gradient(lengths: list[int], filler: int) -> None:
    lengths = sorted(lengths)
    generator = torch.Generator().manual_seed(len(lengths))
    qkv = torch.randn(sum(lengths) + filler, 18, dtype=torch.float64, generator=generator)
    ours, theirs = qkv.clone().requires_grad_(), qkv[: sum(lengths)].clone().requires_grad_()
    got = GroupedAttention.apply(ours, laid_out(lengths, filler), 2, None)
    wanted = plain(theirs, lengths, 2)
    to_scalar = torch.randn(wanted.shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(got[: len(wanted)], wanted, atol=1e-12, rtol=0)
    assert not got[len(wanted) :].any()
    (got[: len(wanted)] * to_scalar).sum().backward()
    (wanted * to_scalar).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad[: len(wanted)], theirs.grad, atol=1e-12, rtol=0)
    assert not ours.grad[len(wanted) :].any()


@pytest.mark.parametrize("with_dropout", [False, True])
def test_the_written_backward_is_the_derivative(with_dropout: bool) -> None:
    layout = laid_out([1, 1, 3, 4, 4], filler=2)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(15, 18, dtype=torch.float64, generator=generator).requires_grad_()
    keep = None
    if with_dropout:
        keep = 2.0 * (torch.rand(layout.weights, dtype=torch.float64, generator=generator) < 0.5)
    assert torch.autograd.gradcheck(lambda x: GroupedAttention.apply(x, layout, 2, keep), (qkv,))


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40), st.integers(0, 20))
def test_ragged_boundaries_are_those_of_the_sequences_and_the_filler(lengths: list[int], filler: int) -> None:
    tokens = sum(lengths)
    offsets, longest = lay_out_ragged(blocks_of(lengths, filler), tokens, tokens + filler, CPU)
    assert offsets.dtype == torch.int32
    assert offsets.diff().tolist() == [*sorted(lengths), filler]
    assert longest == max(*lengths, filler)


def test_cuda_s_kernel_takes_what_it_is_given() -> None:
    """Shapes and types only, of the kernel and its backward: its values need a GPU (`-m gpu`)."""
    offsets, longest = lay_out_ragged(blocks_of([3, 3, 5]), 11, 16, CPU)
    qkv = torch.empty(16, 3 * 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
    mixed = ragged_attention(qkv, Ragged(offsets.to("meta"), longest), 2, 0.1)
    assert (mixed.shape, mixed.dtype) == ((16, 64), torch.bfloat16)
    mixed.sum().backward()
    assert qkv.grad is not None and qkv.grad.shape == qkv.shape


@pytest.mark.gpu
@pytest.mark.parametrize("filler", [0, 5])
def test_cuda_s_kernel_equals_grouped_attention(filler: int) -> None:
    lengths = sorted([3, 17, 17, 40, 1, 256])
    tokens, gpu = sum(lengths), torch.device("cuda")
    values = torch.randn(tokens + filler, 3 * 64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (values.to(gpu, torch.bfloat16).requires_grad_() for _ in range(2))
    blocks = blocks_of(lengths, filler)
    flash = ragged_attention(ours, lay_out_ragged(blocks, tokens, tokens + filler, gpu), 2, 0.0)[:tokens]
    plain = GroupedAttention.apply(theirs, lay_out_groups(blocks, tokens, 2, gpu), 2, None)[:tokens]
    torch.testing.assert_close(flash, plain, atol=0.02, rtol=0.02)
    for one in (flash, plain):
        (one.float() * values[:tokens, :64].to(gpu)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=0.05, rtol=0.05)
