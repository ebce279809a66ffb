"""Reading a tokenizer.json."""

from pathlib import Path

from tokenizers import Tokenizer

from mtbert.errors import MtbertError


def read_tokenizer(path: Path, if_missing: str, if_damaged: str) -> Tokenizer:
    """The tokenizer in a file, with padding and truncation switched off.

    Args:
        if_missing, if_damaged: the remedies, for the error message.

    Raises:
        MtbertError: the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise MtbertError(f"{path}: not found; {if_missing}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise MtbertError(f"{path}: not a tokenizer file ({error}); {if_damaged}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id that the tokenizer gives, added tokens included."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
