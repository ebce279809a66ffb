"""An exported tokenizer gives raw text the wordpieces that mtbert gives it."""

import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

import mtbert
from mtbert.corpus.prepare import clean
from mtbert.export.tokenizer import _course_cleaning, exported_tokenizer
from mtbert.tasks.paper import QUORA, SST
from mtbert.tasks.task import Task
from tests.export.conftest import SENTENCES

CLEANING = {task: normalizers.Sequence(_course_cleaning(task.is_pair)) for task in (SST, QUORA)}
# Sequences that matter are rare among random characters.
WORDS = st.sampled_from(
    [".", "?", ",", "'", " ", "\t", "\x1c", "\x85", "\u2028", "Σ", "ΑΣ", "İ", "ẞ", "ǅ", "\u0301", "a", "\n"]
)


@pytest.mark.parametrize("task", [SST, QUORA], ids=lambda task: task.name)
def test_every_character_is_cleaned_alike(task: Task) -> None:
    """Every character that this Python's Unicode knows; no wordpiece of BERT has a newer one."""
    known = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    texts = [f"{known[n]}Ab{known[n]}Q {known[n]}" for n in range(len(known))]
    wrong = [text for text in texts if CLEANING[task].normalize_str(text) != clean(text, task, "course")]
    assert wrong == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(WORDS | st.characters(codec="utf-8", exclude_categories=["Cn", "Cs"]), max_size=12),
    st.sampled_from([SST, QUORA]),
)
def test_text_is_cleaned_alike(parts: list[str], task: Task) -> None:
    text = "".join(parts)
    assert CLEANING[task].normalize_str(text) == clean(text, task, "course")


@pytest.mark.parametrize("preprocess", ["course", "none"])
def test_the_wordpieces_are_the_same(made: Callable[..., Path], preprocess: str) -> None:
    model = mtbert.load(made("mean", None, preprocess=preprocess), device="cpu", precision="fp32")
    for task in ("sst", "quora"):
        pair = task == "quora"
        tokenizer = exported_tokenizer(model, pair)
        tokenizer.encode_special_tokens = preprocess == "course"
        found = model.tokenize(task, [(text,) * (1 + pair) for text in SENTENCES]).split
        for n, text in enumerate(SENTENCES):
            theirs = tokenizer.encode(text, text) if pair else tokenizer.encode(text)
            ours = found.ids1[found.offsets1[n] : found.offsets1[n + 1]].tolist()
            assert theirs.ids == [101, *ours, 102, *([*ours, 102] if pair else [])], text
            assert theirs.type_ids == [0] * (len(ours) + 2) + [1] * (len(ours) + 1) * pair
