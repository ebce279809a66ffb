"""Ids looked up word by word equal the tokenizer's for any text; tokenizers that split text differently are not cached by word."""

import string

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.pre_tokenizers import WhitespaceSplit

from mtbert.corpus import wordpieces as module
from mtbert.corpus.wordpieces import Wordpieces
from tests.corpus.whole import bert_tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_letters, *string.digits, *string.punctuation]
VOCABULARY += [f"##{letter}" for letter in string.ascii_letters + string.digits] + ["the", "##ing", "é", "##é", "日"]


def bert(lowercase: bool = True) -> Tokenizer:
    tokenizer = bert_tokenizer(VOCABULARY, lowercase)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    return tokenizer


BERTS = {lowercase: bert(lowercase) for lowercase in (True, False)}


def expected(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(st.characters(max_codepoint=127)), st.text(), st.text("the ing[]CLSEP.,'\t\n\x7f\x00é日 ")),
    st.booleans(),
)
@example("[CLS] the", True)
@example("a\x00b\x7fc\td\ne", True)
@example("x" * 120, False)
def test_equals_the_tokenizer(text: str, lowercase: bool) -> None:
    tokenizer = BERTS[lowercase]
    found, lengths = Wordpieces(tokenizer).of([text])
    assert found.dtype == np.uint16 and lengths.dtype == np.int64
    assert found.tolist() == expected(tokenizer, text) and lengths.tolist() == [len(found)]


def sentences(wordpieces: Wordpieces, texts: list[str]) -> list[list[int]]:
    ids, lengths = wordpieces.of(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("cached", [1 << 18, 2])
def test_order_is_kept_across_kinds_of_text_and_emptied_caches(monkeypatch: pytest.MonkeyPatch, cached: int) -> None:
    monkeypatch.setattr(module, "CACHED", cached)
    texts = ["the", "café", "", "a b", "日", "sing", "the", "[SEP]", ""]
    tokenizer = bert()
    wordpieces = Wordpieces(tokenizer)
    for some in (texts, texts[::2], texts[1:2], texts[2:4], texts[2:3]):
        assert sentences(wordpieces, some) == [expected(tokenizer, text) for text in some]


def test_the_largest_id_does_not_end_a_sentence() -> None:
    tokenizer = bert_tokenizer(["[UNK]", *map(str, range(65534)), "a"])
    assert sentences(Wordpieces(tokenizer), ["a a", "b", "a"]) == [[65535, 65535], [0], [65535]]


def test_the_tokenizer_gets_the_cleaned_text() -> None:
    tokenizer = bert(lowercase=False)
    ids, lengths = Wordpieces(tokenizer).of(["THE a", "É", "A"], str.lower)
    assert ids.tolist() == [n for text in ("the a", "é", "a") for n in expected(tokenizer, text)]
    assert lengths.tolist() == [2, 1, 1]


def other_splitter(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = WhitespaceSplit()


def token_in_plain_text(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("b c", normalized=False)])


@pytest.mark.parametrize("change", [other_splitter, token_in_plain_text])
def test_other_tokenizers_encode_every_sentence(change: object) -> None:
    tokenizer = bert()
    change(tokenizer)  # type: ignore[operator]
    texts = ["a, b c", "the.b c"]
    found = sentences(Wordpieces(tokenizer), texts)
    assert found == [expected(tokenizer, text) for text in texts]
    assert found != [expected(bert(), text) for text in texts]
