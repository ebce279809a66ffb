"""Errors about files that other stages write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtbert.errors import MtbertError


@contextmanager
def reading(path: Path, stage: str) -> Iterator[None]:
    """Turn the errors of reading and parsing a file into one that names the command that writes the file again.

    Args:
        stage: the stage that writes it, such as `table@table1`.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; run `dvc repro {stage}`") from None
    except (OSError, AttributeError, KeyError, SyntaxError, TypeError, ValueError) as error:  # SyntaxError: of XML
        # Without --force, DVC may restore the same damaged file from its cache.
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro --force --single-item {stage}`") from None
