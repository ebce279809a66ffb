"""Wordpieces of many sentences: each word of plain ASCII text is tokenised once, all else by `tokenizers`, sentence by sentence.

A sentence is mostly words seen before. BERT's tokenizer cuts at white space and around each punctuation mark before it looks for
wordpieces, so that in ASCII a sentence's wordpieces are those of its words, one after the other: looking words up is several times as fast.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CHUNK = 8192  # sentences tokenised at once; `tokenizers`' own objects are a hundred times larger than their ids
# Printable, and without the bracket that a special token's name may start with, which is recognised inside a text too.
PLAIN = re.compile(r"[ -Z\\-~\t]*")
WORD = re.compile(r"[A-Za-z0-9]+|[!-/:-@\[-`{-~]")


def wordpieces(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """The ids (uint16) of each text, without special tokens, exactly as `tokenizer.encode` gives them."""
    known = _Words(tokenizer) if _splits_into_words(tokenizer) else None
    texts = iter(texts)
    while chunk := list(islice(texts, CHUNK)):
        plain = [known is not None and PLAIN.fullmatch(text) is not None for text in chunk]
        others = [text for text, easy in zip(chunk, plain, strict=True) if not easy]
        encoded = iter(tokenizer.encode_batch_fast(others, add_special_tokens=False))
        for text, easy in zip(chunk, plain, strict=True):
            if easy and known is not None:
                yield np.fromiter(chain.from_iterable(map(known.__getitem__, WORD.findall(text))), np.uint16)
            else:
                yield np.array(next(encoded).ids, np.uint16)


class _Words(dict[str, list[int]]):
    """The ids of each word met so far."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        self[word] = ids
        return ids


def _splits_into_words(tokenizer: Tokenizer) -> bool:
    """Whether it is BERT's, with no added token whose name could stand in plain text."""
    added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and all(name.startswith("[") for name in added)
    )
