"""Static shapes: sizes, filler, and a place that holds exactly the batch that was written into it last."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mtbert.data.static import FILLER, LARGEST, StaticBatch, rows_for

from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import Wrapper

CPU = torch.device("cpu")


def test_sizes_are_few_and_filler_is_small() -> None:
    sizes = set()
    for tokens in range(1, LARGEST):
        rows = rows_for(tokens)
        if rows is None:
            assert tokens >= LARGEST * 15 / 16
            continue
        assert 1 <= rows - tokens <= max(FILLER, tokens / 16)
        assert rows % FILLER == 0
        sizes.add(rows)
    assert len(sizes) <= 96
    assert rows_for(LARGEST) is None


@pytest.fixture
def batch(make_split: Callable[..., Split], wrapper: Wrapper) -> Callable[[str, int], Batch]:
    """batch(task, seed): eight examples with all views."""

    def make(task: str, seed: int) -> Batch:
        views = ("u",) if task == "sst" else ("u", "v", "c")
        return make_batch(task, make_split(task, 8, seed), np.arange(8), views, wrapper)

    return make


def longest(batch: Batch) -> int:
    return max(block.length for block in batch.stream.blocks)


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
def test_a_place_holds_what_was_written_last(batch: Callable[[str, int], Batch], task: str) -> None:
    rows = 512
    static = StaticBatch(batch(task, 0), rows, 24, CPU)
    tensors = [static.batch.labels, static.batch.stream.ids, static.batch.stream.ragged.offsets]  # type: ignore[union-attr]
    places = [tensor.data_ptr() for tensor in tensors]  # type: ignore[union-attr]
    for seed in range(5):
        one = batch(task, seed)
        static.fill(one)
        stream, theirs, ragged = static.batch.stream, one.stream, static.batch.stream.ragged
        assert ragged is not None and one.labels is not None and static.batch.labels is not None
        assert static.batch.labels.dtype == torch.float32
        assert torch.equal(static.batch.labels, one.labels)
        assert torch.equal(stream.rank, theirs.rank)
        for name in ("ids", "positions", "segments"):
            mine = getattr(stream, name)
            assert len(mine) == rows
            assert torch.equal(mine[: theirs.tokens], getattr(theirs, name)[: theirs.tokens])
            assert not mine[theirs.tokens :].any()
        lengths = [block.length for block in theirs.blocks for _ in range(block.count)][: len(theirs.rank)]
        found = ragged.offsets.diff().tolist()
        assert found[: len(lengths)] == lengths
        assert sum(found) == rows and ragged.offsets[0] == 0
        assert max(found[len(lengths) :]) <= -(-(rows - theirs.tokens) // (len(found) - len(lengths)))
        assert ragged.longest >= longest(one)
        assert [tensor.data_ptr() for tensor in tensors] == places  # type: ignore[union-attr]


def test_filler_is_short_sequences(batch: Callable[[str, int], Batch]) -> None:
    one = batch("quora", 1)
    rows = rows_for(one.stream.tokens)
    assert rows is not None
    static = StaticBatch(one, rows, 24, CPU)
    static.fill(one)
    ragged = static.batch.stream.ragged
    assert ragged is not None
    assert 0 < max(ragged.offsets.diff()[len(one.stream.rank) :]) <= FILLER <= ragged.longest
