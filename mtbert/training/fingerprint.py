"""A hash of all that determines a run: plan (settings and code), data, starting weights, and what rounding depends on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.seal import remedy


def fingerprint(identity: Mapping[str, Any], paths: Iterable[Path]) -> str:
    """24 hex digits over JSON values and over the names and contents of files.

    Args:
        identity: JSON values.
        paths: files and folders of the prepared data. Names are relative to each path's parent, so the hash does not depend on the location.

    Raises:
        MtbertError: a path does not exist.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for part in paths:
        if not part.exists():
            raise MtbertError(f"{part}: not found; {remedy(part)}")
        for path in [part] if part.is_file() else sorted(path for path in part.rglob("*") if path.is_file()):
            digest.update(f"\0{path.relative_to(part.parent).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]
