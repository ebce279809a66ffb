"""What the tests of raw files share: their headers, a file of examples read at once, and BERT's tokenizer."""

from collections.abc import Collection, Iterable
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mtbert.corpus.read import read_blocks
from mtbert.corpus.rows import BadRow, Example
from mtbert.tasks.task import Task

HEADERS = {
    "sst": "\tid\tsentence\tsentiment",
    "quora": "\tid\tsentence1\tsentence2\tis_duplicate",
    "sts": "\tid\tsentence1\tsentence2\tsimilarity",
}


def read_split(
    path: Path, task: Task, labelled: bool, on_bad_row: Literal["error", "drop"]
) -> tuple[list[Example], list[BadRow]]:
    """The whole file, as `read_blocks` reads it: its examples and its malformed rows."""
    examples: list[Example] = []
    bad: list[BadRow] = []
    for rows, malformed in read_blocks(path, task, labelled, on_bad_row):
        second = rows.sides[1] if len(rows.sides) == 2 else repeat(None)
        labels = repeat(None) if rows.labels is None else rows.labels
        examples += map(Example, rows.ids, rows.sides[0], second, labels, rows.lines)
        bad += malformed
    return examples, bad


def bert_tokenizer(words: Iterable[str], lowercase: bool = True) -> Tokenizer:
    """BERT's tokenizer with these wordpieces, numbered from 0; `[UNK]` is one of them."""
    tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def same_hash(texts: Collection[str]) -> np.ndarray:
    """A stand-in for `mtbert.corpus.hashes.hashes`: all texts collide."""
    return np.zeros(len(texts), np.int64)
