"""The token stream: its exact layout, the order restored by rank, and the wrapping of sequences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.data.tokens import TokenStream, Wrapper, lay_out, wrapper_for
from mtbert.errors import MtbertError
from mtbert.pretrained.bert import BERT
from tests.corpus.whole import bert_tokenizer


def sequence(*ids: int, second: int | None = None) -> tuple[np.ndarray, int]:
    return np.array(ids), len(ids) if second is None else second


def unlay(stream: TokenStream) -> list[tuple[list[int], list[int], list[int]]]:
    """ids, positions and segments of every sequence, in the caller's order, using only documented fields."""
    assert (
        stream.offsets[0] == 0
        and stream.offsets[len(stream.rank)] == stream.tokens
        and stream.offsets[-1] == len(stream.ids)
    )
    tensors = (stream.ids, stream.positions, stream.segments)
    lengths = stream.offsets.diff().tolist()
    parts = list(zip(*(tensor.split(lengths) for tensor in tensors), strict=True))
    return [tuple(tensor.tolist() for tensor in parts[place]) for place in stream.rank.tolist()]  # type: ignore[misc]


def test_layout_of_a_small_batch() -> None:
    stream = lay_out(
        [sequence(1, 7, 8, 2), sequence(1, 2), sequence(1, 5, 2, 6, 2, second=3), sequence(1, 9, 2, 2, second=3)]
    )
    assert stream.ids.tolist() == [1, 2, 1, 7, 8, 2, 1, 9, 2, 2, 1, 5, 2, 6, 2]
    assert stream.positions.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert stream.segments.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]
    assert stream.offsets.tolist() == [0, 2, 6, 10, 15]
    assert stream.rank.tolist() == [1, 0, 3, 2]
    assert (stream.tokens, stream.longest) == (15, 5)
    for tensor in (stream.ids, stream.positions, stream.segments, stream.offsets, stream.rank):
        assert tensor.dtype == torch.int64


one_sequence = st.lists(st.integers(0, 65535), min_size=1, max_size=9).flatmap(
    lambda ids: st.tuples(st.just(np.array(ids)), st.integers(1, len(ids)))
)


@settings(max_examples=150, deadline=None)
@given(st.lists(one_sequence, min_size=1, max_size=9), st.integers(1, 16))
def test_rank_restores_every_sequence_and_filler_rounds_the_stream_up(
    sequences: list[tuple[np.ndarray, int]], multiple: int
) -> None:
    stream = lay_out(sequences, multiple)
    for (ids, second), (got, positions, segments) in zip(sequences, unlay(stream), strict=True):
        assert got == ids.tolist()
        assert positions == list(range(len(ids)))
        assert segments == [int(place >= second) for place in range(len(ids))]
    lengths = stream.offsets.diff().tolist()
    assert lengths[: len(sequences)] == sorted(len(ids) for ids, _ in sequences), "shortest first"
    assert lengths[len(sequences) :] == [1] * (len(stream.ids) - stream.tokens), "filler"
    assert len(stream.ids) == -(-stream.tokens // multiple) * multiple
    assert not any(values[stream.tokens :].any() for values in (stream.ids, stream.positions, stream.segments))
    assert stream.longest == max(len(ids) for ids, _ in sequences)
    assert stream.rank.sort().values.tolist() == list(range(len(sequences)))


def test_single_sentence_is_wrapped_and_truncated() -> None:
    wrapper = Wrapper(cls=101, sep=102, max_tokens=5)
    ids, second = wrapper.single(np.array([7, 8], np.uint16))
    assert (ids.tolist(), second) == ([101, 7, 8, 102], 4)
    ids, second = wrapper.single(np.arange(10, 20, dtype=np.uint16))
    assert (ids.tolist(), second) == ([101, 10, 11, 12, 102], 5)


def test_pair_is_wrapped_with_its_segment() -> None:
    ids, second = Wrapper(cls=101, sep=102, max_tokens=16).pair(np.array([7, 8], np.uint16), np.array([9], np.uint16))
    assert (ids.tolist(), second) == ([101, 7, 8, 102, 9, 102], 4)


def cut_one_by_one(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """BERT's rule: while the pair is too long, the longer sentence loses its last wordpiece (the second on a tie)."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


pieces = st.lists(st.integers(3, 60000), min_size=1, max_size=14)


@settings(max_examples=300, deadline=None)
@given(pieces, pieces, st.integers(5, 24))
def test_the_longer_sentence_of_a_pair_is_truncated_first(first: list[int], second: list[int], max_tokens: int) -> None:
    ids, segment = Wrapper(cls=1, sep=2, max_tokens=max_tokens).pair(
        np.array(first, np.uint16), np.array(second, np.uint16)
    )
    one, two = cut_one_by_one(first, second, max_tokens - 3)
    assert ids.tolist() == [1, *one, 2, *two, 2]
    assert segment == len(one) + 2
    assert len(ids) <= max_tokens


def test_large_wordpieces_survive_their_16_bits() -> None:
    ids, _ = Wrapper(cls=101, sep=102, max_tokens=8).single(np.array([65535], np.uint16))
    assert lay_out([(ids, 3)]).ids.tolist() == [101, 65535, 102]


def test_special_tokens_come_from_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    bert_tokenizer(["[UNK]", "a", "[SEP]", "[CLS]"]).save(str(path))
    wrapper = wrapper_for(path, 9, BERT.special_tokens)
    assert (wrapper.cls, wrapper.sep, wrapper.max_tokens) == (3, 2, 9)
    bert_tokenizer(["[UNK]", "a", "[SEP]"]).save(str(path))
    with pytest.raises(MtbertError, match=r"tokenizer\.json: has no \[CLS\] or \[SEP\]"):
        wrapper_for(path, 9, BERT.special_tokens)
