"""Wordpieces of many sentences: words of plain ASCII text are tokenised once and cached, other sentences as a whole by `tokenizers`.

Most words of a sentence were seen before. BERT's tokenizer splits at white space and punctuation before it looks for wordpieces, so the
wordpieces of an ASCII sentence are those of its words in order, and looking the words up is many times faster.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, compress

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

REMEMBERED = 1 << 18  # words, some 200 bytes each
END = "\0"  # of a plain sentence
# Printable, and without the bracket that a special token's name may start with, which is recognised inside a text too.
PLAIN = re.compile(r"[ -Z\\-~\t]*")
WORD = re.compile(r"[A-Za-z0-9]+|[!-/:-@\[-`{-~]")
WIDE = np.uint32
NO_ID = np.iinfo(WIDE).max  # for END


class Wordpieces:
    """Gives a tokenizer's own ids, without special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = _Words(tokenizer)
        self._by_words = _splits_into_words(tokenizer)

    def of(self, texts: Sequence[str], clean: Callable[[str], str] = str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of each text once it is cleaned, exactly as `tokenizer.encode(clean(text))` gives them.

        Args:
            texts: R sentences.
            clean: what to do to a sentence; to plain text it does the same where it stands among others, but for white space,
                and leaves it plain.

        Returns:
            (W,) uint16, the ids of all texts end to end, and (R,) int64, how many each has.
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
        """The same of sentences that each are followed by END."""
        if len(self._known) > REMEMBERED:
            self._known = _Words(self._tokenizer)
        ids = np.frombuffer(b"".join(map(self._known.__getitem__, text.split())), WIDE)
        is_end = ids == NO_ID
        return ids[~is_end].astype(np.uint16), np.diff(np.flatnonzero(is_end), prepend=-1) - 1


class _Words(dict[str, bytes]):
    """The ids of each word met so far, as the bytes of an array, since joining bytes is the quickest way to line them up."""

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
    """Whether it is BERT's, with no added token whose name could stand in plain text."""
    added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and all(name.startswith("[") for name in added)
    )
