"""Rows are compared by text, even if their hashes collide."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.corpus import hashes, repeats
from mtbert.corpus.hashes import SeenHashes
from mtbert.corpus.repeats import Keys, sentences_keys

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


def key(*sentences: str) -> tuple[str, ...]:
    return tuple(sorted(" ".join(text.casefold().split()) for text in sentences))


def test_keys_ignore_case_spacing_and_order() -> None:
    one, two, three = sentences_keys([["A  b", "c", "a bc"], ["C", " a B", "d"]])
    assert one == two != three
    assert sentences_keys([["A  b", "STRASSE\u2028"]]) == ["a b", "strasse"]
    assert sentences_keys([[], []]) == sentences_keys([[]]) == []


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_keys_of_a_block_are_those_of_its_rows(rows: list[tuple[str, str]]) -> None:
    firsts, seconds = zip(*rows, strict=True)
    assert [tuple(text.split("\0")) for text in sentences_keys([firsts, seconds])] == [key(*row) for row in rows]
    assert sentences_keys([firsts]) == [key(text)[0] for text in firsts]


def weak(texts: list[str]) -> np.ndarray:
    return np.array([len(text) % 3 - 1 for text in texts], np.int64)


some_keys = st.lists(st.sampled_from(["a", "b", "é", "ab", "ba", "a b", "abcd", "\0"]), max_size=12)


@pytest.mark.parametrize("hashed", [hashes.hashes, weak])
@given(held=st.lists(some_keys, max_size=3), asked=some_keys, label=st.lists(st.sampled_from([0.0, 1.0]), min_size=36))
def test_repeats_are_counted_by_text(
    tmp_path_factory: pytest.TempPathFactory,
    hashed: object,
    held: list[list[str]],
    asked: list[str],
    label: list[float],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "hashes", hashed)
        keys = Keys(tmp_path_factory.getbasetemp())
        rows: list[tuple[str, float]] = []
        for block in held:
            labels = label[len(rows) : len(rows) + len(block)]
            keys.add(block, labels)
            rows += zip(block, labels, strict=True)
        keys.close_up()
        all_texts = [text for text, _ in rows]
        assert keys.repeated() == (len(rows) - len(set(all_texts)), len(rows) - len(set(rows)))
        assert list(keys.where(asked)) == [n for n, text in enumerate(asked) if text in all_texts]
        keys.close()


def test_keys_leave_no_file_behind(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.add(["a"], None)
    assert list(tmp_path.iterdir()) == []
    keys.close()


@given(st.lists(some_keys, max_size=30))
def test_texts_of_earlier_calls_are_found(calls: list[list[str]]) -> None:
    seen, before = SeenHashes(), set()
    for call in calls:
        assert seen.may_have(call) == (not before.isdisjoint(call))
        before.update(call)
