"""A name for all that determines a run: settings, data, starting weights, code, and what the last bits depend on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def fingerprint(identity: Mapping[str, Any], data: Path, code: Iterable[Path]) -> str:
    """24 hex digits over JSON-able settings, the files under `data`, and the Python files that `code` names or holds."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    files = [(path, data) for path in data.rglob("*") if path.is_file()]
    files += [(path, part.parent) for part in code for path in ([part] if part.is_file() else part.rglob("*.py"))]
    for path, base in sorted(files):
        digest.update(f"\0{path.relative_to(base).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]
