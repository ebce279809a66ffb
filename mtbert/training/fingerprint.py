"""A name for all that determines a run: its plan (settings and code), data, starting weights, and what the last bits depend on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError


def fingerprint(identity: Mapping[str, Any], paths: Iterable[Path]) -> str:
    """24 hex digits over JSON-able values and files: names and contents of `paths`, each a file or a folder.

    A file's name counts from the folder that its path lies in on, so that the same files elsewhere give the same digits.

    Raises:
        MtbertError: one of the paths is not there.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for part in paths:
        if not part.exists():
            raise MtbertError(f"{part}: not found; run `dvc repro` to make what is missing")
        for path in [part] if part.is_file() else sorted(path for path in part.rglob("*") if path.is_file()):
            digest.update(f"\0{path.relative_to(part.parent).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]
