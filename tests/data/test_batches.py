"""Batches from rows: which sequences are where."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, filled_to, length_grouped, make_batch, row_tokens, views_for
from mtbert.data.tokens import Wrapper


def sequences(batch: Batch) -> list[list[int]]:
    parts = batch.stream.ids.tensor_split(batch.stream.offsets[1:])
    return [parts[place].tolist() for place in batch.stream.rank.tolist()]


def pieces(ids: np.ndarray | None, offsets: np.ndarray | None, row: int) -> list[int]:
    assert ids is not None and offsets is not None
    return ids[offsets[row] : offsets[row + 1]].tolist()


def test_each_view_of_each_row_in_order(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    split = make_split("quora", 9)
    rows = np.array([7, 0, 3])
    batch = make_batch("quora", split, rows, ("u", "v", "c"), wrapper)
    u = [[1, *pieces(split.ids1, split.offsets1, row), 2] for row in rows]
    v = [[1, *pieces(split.ids2, split.offsets2, row), 2] for row in rows]
    c = [one + two[1:] for one, two in zip(u, v, strict=True)]
    assert sequences(batch) == u + v + c
    assert (batch.task, batch.views) == ("quora", ("u", "v", "c"))
    assert batch.labels is not None and split.labels is not None
    assert batch.labels.tolist() == split.labels[rows].tolist()
    # Only the pair's second sentence is in segment 1, its [SEP] included.
    assert int(batch.stream.segments.sum()) == sum(len(two) - 1 for two in v)


def test_a_single_sentence_task_has_one_view(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    batch = make_batch("sst", make_split("sst", 4), np.arange(4), ("u",), wrapper)
    assert len(sequences(batch)) == 4
    assert int(batch.stream.segments.sum()) == 0


def test_an_unlabelled_split_gives_no_labels(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    batch = make_batch("sts", make_split("sts", 3, labelled=False), np.arange(2), ("c",), wrapper)
    assert batch.labels is None


@pytest.mark.parametrize(
    ("features", "views"),
    [
        (["u"], ("u",)),
        (["u", "v"], ("u", "v")),
        (["v"], ("u", "v")),
        (["|u-v|"], ("u", "v")),
        (["|u+v|", "|u-v|"], ("u", "v")),
        (["c"], ("c",)),
        (["c", "u"], ("u", "c")),
        (["u", "v", "c"], ("u", "v", "c")),
        (["|u-v|", "c"], ("u", "v", "c")),
    ],
)
def test_features_name_the_sequences_they_need(features: Sequence[str], views: tuple[str, ...]) -> None:
    assert views_for(features) == views


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.booleans(), st.integers(0, 9))
def test_prediction_batches_hold_every_row_once(
    make_split: Callable[..., Split], count: int, batch_size: int, pair: bool, seed: int
) -> None:
    split = make_split("quora" if pair else "sst", 30)
    rows = np.random.default_rng(seed).permutation(30)[:count]
    batches = list(length_grouped(split, rows, batch_size))
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    lengths = np.diff(split.offsets1)[rows]
    if split.offsets2 is not None:
        lengths = lengths + np.diff(split.offsets2)[rows]
    in_order = lengths[np.concatenate(batches)].tolist()
    assert in_order == sorted(in_order), "neighbours are of similar length"


@given(st.integers(1, 2**16))
def test_filler_is_few_rows_and_sizes_are_few(tokens: int) -> None:
    multiple = filled_to(tokens)
    filler = -tokens % multiple
    assert multiple % 16 == 0
    assert filler < max(16, tokens / 32)
    assert (tokens + filler) / multiple <= 64, "at most 32 sizes between a power of two and the next"


@pytest.mark.parametrize(("tokens", "multiple"), [(1, 16), (1023, 16), (1024, 32), (2047, 32), (2048, 64)])
def test_sizes_grow_with_the_powers_of_two(tokens: int, multiple: int) -> None:
    assert filled_to(tokens) == multiple


def test_a_batch_has_filler(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    stream = make_batch("quora", make_split("quora", 40), np.arange(40), ("u", "v", "c"), wrapper).stream
    assert len(stream.ids) == -(-stream.tokens // filled_to(stream.tokens)) * filled_to(stream.tokens)
    assert 0 <= len(stream.ids) - stream.tokens < filled_to(stream.tokens)


@pytest.mark.parametrize(
    ("task", "views"), [("sst", ("u",)), ("quora", ("u", "v")), ("quora", ("u", "v", "c")), ("sts", ("c",))]
)
def test_a_row_s_tokens_are_those_of_its_batch(
    task: str, views: tuple[str, ...], make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    split = make_split(task, 20)
    for longest in (wrapper.max_tokens, 8):
        cut = Wrapper(wrapper.cls, wrapper.sep, longest)
        batches = [make_batch(task, split, np.array([row]), views, cut).stream.tokens for row in range(20)]
        assert row_tokens(split, views, longest).tolist() == batches
