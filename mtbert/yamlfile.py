"""Reading a YAML file that people edit: a clear error for every fault, and limits on size and nesting."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from mtbert.errors import MtbertError, short

LARGEST_FILE = 1 << 20  # bytes
DEEPEST = 20  # nested mappings and lists
LONGEST = 1000  # characters of one value


def read_yaml(path: Path) -> Any:
    """The content of a YAML 1.2 file, as DVC reads it: 1e-5 is a number and `on` is text.

    Raises:
        MtbertError: the file is missing or not YAML, or it has an alias (a few can expand to more than memory holds), a tag,
            very deep nesting or a value of thousands of characters; settings need none of these.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe may block for ever
            raise MtbertError(f"{path}: not a file; put a file with the settings there")
        if path.stat().st_size > LARGEST_FILE:
            raise MtbertError(f"{path}: larger than {LARGEST_FILE:,} bytes; settings need a few thousand")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; run from the project's root") from None
    except OSError as error:
        raise MtbertError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    except UnicodeDecodeError as error:
        raise MtbertError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    try:
        _check_size(path, text)
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise MtbertError(f"{where}: not valid YAML: {error.problem}; correct that line") from None
    except (YAMLError, ValueError, TypeError) as error:  # a control character, an impossible date, a list as a key
        raise MtbertError(f"{path}: not valid YAML: {' '.join(str(error).split())}; correct it") from None


def _check_size(path: Path, text: str) -> None:
    """Check the stream of parser events, which takes no more memory than the text."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        where = f"{path}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if depth > DEEPEST:
            raise MtbertError(f"{where}: nested more than {DEEPEST} deep; remove the extra brackets or indentation")
        if isinstance(event, AliasEvent):
            raise MtbertError(
                f"{where}: *{event.anchor} is a YAML alias, which DVC loses when it writes the file; "
                "write the values out, or let a run inherit them with `from: RUN`"
            )
        if getattr(event, "tag", None) is not None:
            raise MtbertError(f"{where}: a YAML tag, {short(event.tag)}; remove it")
        if isinstance(event, ScalarEvent) and len(event.value) > LONGEST:
            raise MtbertError(f"{where}: a value of {len(event.value):,} characters; at most {LONGEST:,} are allowed")
