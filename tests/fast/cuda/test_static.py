"""Static shapes: sizes, filler, and a buffer that holds exactly the batch written last."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import Wrapper
from mtbert.fast.cuda.static import FILLER, LARGEST, StaticBatch, rows_for

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


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
def test_the_buffer_holds_the_last_batch(batch: Callable[[str, int], Batch], task: str) -> None:
    rows = 512
    static = StaticBatch(batch(task, 0), rows, 24, CPU)
    stream, labels = static.batch.stream, static.batch.labels
    assert labels is not None
    for seed in range(5):
        one = batch(task, seed)
        static.fill(one)
        theirs = one.stream
        assert one.labels is not None and labels.dtype == torch.float32
        assert torch.equal(labels, one.labels)
        assert torch.equal(stream.rank, theirs.rank)
        for name in ("ids", "positions", "segments"):
            mine = getattr(stream, name)
            assert len(mine) == rows
            assert torch.equal(mine[: theirs.tokens], getattr(theirs, name)[: theirs.tokens])
            assert not mine[theirs.tokens :].any()
        assert stream.longest >= theirs.longest
        found, sequences = stream.offsets.diff(), len(theirs.rank)
        assert torch.equal(stream.offsets[: sequences + 1], theirs.offsets[: sequences + 1].int())
        assert stream.offsets[-1] == rows
        filler = found[sequences:]
        assert min(filler) > 0 and max(filler) <= -(-(rows - theirs.tokens) // len(filler))


def test_filler_is_short_sequences(batch: Callable[[str, int], Batch]) -> None:
    one = batch("quora", 1)
    rows = rows_for(one.stream.tokens)
    assert rows is not None
    static = StaticBatch(one, rows, 24, CPU)
    static.fill(one)
    stream = static.batch.stream
    assert 0 < max(stream.offsets.diff()[len(one.stream.rank) :]) <= FILLER <= stream.longest
