"""Wordpieces of many sentences, with a cache of words for plain ASCII text; other text goes to `tokenizers` sentence by sentence.

BERT's tokenizer splits at white space and around punctuation before it looks for wordpieces, so in ASCII a sentence's wordpieces are
those of its words. Most words have been seen before, and looking them up is many times as fast as tokenizing the sentence.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, compress

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CACHED = 1 << 18  # words, some 200 bytes each
END = "\0"  # after each plain sentence
# Printable, without [: special tokens, which tokenizers also recognises inside a text, may start with it.
PLAIN = re.compile(r"[ -Z\\-~\t]*")
WORD = re.compile(r"[A-Za-z0-9]+|[!-/:-@\[-`{-~]")
WIDE = np.uint32
NO_ID = np.iinfo(WIDE).max  # for END


class Wordpieces:
    """A tokenizer's ids of many sentences, without special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words = _Words(tokenizer)
        self._by_words = _splits_into_words(tokenizer)

    def of(self, texts: Sequence[str], clean: Callable[[str], str] = str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of each text after cleaning, exactly those of `tokenizer.encode(clean(text))`.

        Args:
            texts: R sentences.
            clean: the cleaning of a sentence. Plain sentences are joined and cleaned in one call, so what becomes of a sentence must
                not depend on the text around it, except for white space, and it must stay plain.

        Returns:
            (W,) uint16, the ids of all texts end to end, and (R,) int64, the number of ids per text.
        """
        plain = np.array([self._by_words and PLAIN.fullmatch(text) is not None for text in texts], np.bool_)
        ids, lengths = self._of_plain(clean(f" {END} ".join([*compress(texts, plain), ""])))
        if plain.all():
            return ids, lengths
        others = [clean(text) for text in compress(texts, ~plain)]
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(others, add_special_tokens=False)]
        all_lengths = np.empty(len(texts), np.int64)
        all_lengths[plain], all_lengths[~plain] = lengths, [len(sentence) for sentence in encoded]
        from_plain = np.repeat(plain, all_lengths)
        all_ids = np.empty(len(from_plain), np.uint16)
        all_ids[from_plain], all_ids[~from_plain] = ids, list(chain.from_iterable(encoded))
        return all_ids, all_lengths

    def _of_plain(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The same for plain sentences, cleaned and joined, with END after each."""
        if len(self._words) > CACHED:
            self._words = _Words(self._tokenizer)
        ids = np.frombuffer(b"".join(map(self._words.__getitem__, text.split())), WIDE)
        is_end = ids == NO_ID
        return ids[~is_end].astype(np.uint16), np.diff(np.flatnonzero(is_end), prepend=-1) - 1


class _Words(dict[str, bytes]):
    """Cache: word -> its ids, as the bytes of an array, since joining bytes is the fastest way to concatenate."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__({END: np.array([NO_ID], WIDE).tobytes()})
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        parts = WORD.findall(word)
        if parts == [word]:
            ids = np.array(self._tokenizer.encode(word, add_special_tokens=False).ids, WIDE).tobytes()
        else:
            ids = b"".join([self[part] for part in parts])
        self[word] = ids
        return ids


def _splits_into_words(tokenizer: Tokenizer) -> bool:
    """Whether this is BERT's tokenizer, and none of its added tokens can occur in plain text."""
    added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and all(name.startswith("[") for name in added)
    )
