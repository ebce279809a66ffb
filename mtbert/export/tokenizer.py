"""A tokenizer.json that reads raw text as mtbert does: cleaned like the training data, between [CLS] and [SEP]."""

import sys
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.normalizers import Lowercase, Normalizer, Replace
from tokenizers.processors import BertProcessing

from mtbert.corpus.tokenizer import read_tokenizer
from mtbert.files import atomic_json, atomic_write_text
from mtbert.inference.load import AGAIN
from mtbert.inference.model import TrainedModel
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.store import TOKENIZER

# Python lower-cases a final sigma to ς; `Lowercase` goes character by character and writes σ.
FINAL_SIGMA = r"(?<=\p{Cased}\p{Case_Ignorable}*)Σ(?!\p{Case_Ignorable}*\p{Cased})"
ROLES = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


def exported_tokenizer(model: TrainedModel, pair: bool) -> Tokenizer:
    """The model's tokenizer, which cleans text as `mtbert.corpus.prepare.clean` does for a pair or a single sentence.

    With the course's cleaning, text is lower-cased before special tokens are looked for, so that "[SEP]" in it is plain text. A
    tokenizer does that if its `encode_special_tokens` is set, which tokenizer.json does not store: who loads it must set it.
    """
    tokenizer = read_tokenizer(model.folder / TOKENIZER, AGAIN, AGAIN)
    if model.preprocess == "course":
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([*_course_cleaning(pair), *own])
    (cls, cls_id), (sep, sep_id) = ((token, int(tokenizer.token_to_id(token) or 0)) for token in BERT.special_tokens)
    tokenizer.post_processor = BertProcessing((sep, sep_id), (cls, cls_id))
    return tokenizer


def write_tokenizer(model: TrainedModel, pair: bool, longest: int, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, as transformers' `AutoTokenizer` reads them.

    Args:
        longest: `model_max_length`, the tokens at which `truncation=True` cuts.
    """
    tokenizer = exported_tokenizer(model, pair)
    cls, sep = BERT.special_tokens
    atomic_write_text(folder / TOKENIZER, tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # BertTokenizer would rebuild the tokenizer without our cleaning
        "model_max_length": longest,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "cls_token": cls,
        "sep_token": sep,
        **{role: token for role, token in ROLES.items() if tokenizer.token_to_id(token) is not None},
        "split_special_tokens": model.preprocess == "course",
        "clean_up_tokenization_spaces": True,
    }
    atomic_json(folder / "tokenizer_config.json", config)


def _course_cleaning(pair: bool) -> list[Normalizer]:
    lower: list[Normalizer] = [Replace(Regex(FINAL_SIGMA), "ς"), Lowercase()]
    if not pair:
        return [*lower, Replace(Regex(rf"\A{_space()}+|{_space()}+\z"), "")]
    spaced = [Replace(mark, f" {mark}") for mark in ".?,'"]
    return [*lower, *spaced, Replace(Regex(f"{_space()}+"), " "), Replace(Regex(r"\A | \z"), "")]


@cache
def _space() -> str:
    """A class of the characters that Python's `split` and `strip` take as white space; `\\s` lacks some of them."""
    return "[" + "".join(f"\\x{{{code:x}}}" for code in range(sys.maxunicode + 1) if chr(code).isspace()) + "]"
