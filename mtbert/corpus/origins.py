"""The file that errors about data/raw name, and their remedies: fetch overwrites data/raw, so the file to correct is its source."""

import json
from pathlib import Path
from typing import NamedTuple

from mtbert.errors import MtbertError

FETCH = "run `dvc repro --force --single-item fetch`"


class Origin(NamedTuple):
    """The source of a raw file.

    Attributes:
        name: the file that messages name.
        fix_row: the remedy for a malformed row.
        fix_file: the remedy for a file that is malformed as a whole.
        fix_encoding: the remedy for a file in another encoding.
    """

    name: str
    fix_row: str
    fix_file: str
    fix_encoding: str


def users_own(name: str) -> Origin:
    """A file that the user can edit. If DVC tracks it, it may be a read-only hard link into the cache: unprotect it first."""
    first = f"run `dvc unprotect {name}` and " if Path(f"{name}.dvc").exists() else ""
    return Origin(
        name,
        f"{first}correct the row, or set prepare.on_bad_row: drop to leave it out",
        f"{first}replace the file by an intact copy",
        f"{first}save the file as UTF-8 without byte order mark",
    )


def origin_of(path: Path) -> Origin:
    """The origin of data/raw/NAME.csv according to the source.json beside it; without one, the file itself.

    Raises:
        MtbertError: source.json is damaged.
    """
    record = path.with_name("source.json")
    try:
        source = json.loads(record.read_text(encoding="utf-8"))
        entry = source["files"][path.name]
        came_from = entry.get("from")
    except FileNotFoundError:
        return users_own(str(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MtbertError(f"{record}: cannot be read, or does not list {path.name} ({error!r}); {FETCH}") from None
    if source["source"] == "folder" or entry.get("declared"):
        return users_own(str(came_from))
    made = "generated" if came_from is None else f"downloaded from {came_from}"
    return Origin(
        str(path),
        f"set prepare.on_bad_row: drop to leave the row out (the file was {made}, so do not edit it)",
        *[f"{FETCH} (the file was {made})"] * 2,
    )
