"""What errors about a raw file name and advise: fetch overwrites data/raw, so a correction made there is lost."""

import json
from pathlib import Path
from typing import NamedTuple

from mtbert.errors import MtbertError

FETCH = "run `dvc repro --force --single-item fetch`"


class Origin(NamedTuple):
    """Where the content of a raw file came from.

    Attributes:
        name: the file that messages name.
        fix_row: what to do about a malformed row.
        fix_file: what to do about a file that is malformed as a whole.
    """

    name: str
    fix_row: str
    fix_file: str


def users_own(name: str) -> Origin:
    """A file that its user can edit. If DVC tracks it, it may be a read-only hard link into the cache, so it is unprotected first."""
    first = f"run `dvc unprotect {name}` and " if Path(f"{name}.dvc").exists() else ""
    return Origin(
        name,
        f"{first}correct the row, or set prepare.on_bad_row: drop to leave it out",
        f"{first}replace the file by a whole copy of it",
    )


def origin_of(path: Path) -> Origin:
    """The origin of data/raw/NAME.csv according to the source.json beside it; without one, the file itself.

    Raises:
        MtbertError: source.json is damaged.
    """
    about = path.with_name("source.json")
    try:
        source = json.loads(about.read_text(encoding="utf-8"))
        about_file = source["files"][path.name]
        came_from = about_file.get("from")
    except FileNotFoundError:
        return users_own(str(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MtbertError(f"{about}: cannot be read, or says nothing of {path.name} ({error!r}); {FETCH}") from None
    if source["source"] == "folder" or about_file.get("declared"):
        return users_own(str(came_from))
    made = "generated" if came_from is None else f"downloaded from {came_from}"
    return Origin(
        str(path),
        f"set prepare.on_bad_row: drop to leave the row out (the file was {made}; do not edit it by hand)",
        f"{FETCH} (the file was {made})",
    )
