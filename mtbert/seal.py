"""Checksums of a folder and of a JSON object. DVC trusts a read-only file of its cache unread, so a stage checks what it is given."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file

SEAL = "sha256.json"


def seal(folder: Path, *names: str) -> None:
    """Write the sha256 of every other file in `folder`, or only of those named, into its sha256.json."""
    every = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL)
    files = [folder / name for name in names] or every
    atomic_json(folder / SEAL, {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def check_seal(folder: Path, *names: str, stage: str = "") -> None:
    """Compare the folder's files, or only those named, with its sha256.json; a folder made by hand has none and passes.

    Args:
        stage: the stage of dvc.yaml that wrote the folder, for the remedy.

    Raises:
        MtbertError: names the file whose bytes are not those that were written.
    """
    path = folder / SEAL
    # Plain `dvc repro` may take a damaged file of DVC's cache for the right one.
    remedy = f"run `dvc repro --force --single-item {stage or 'STAGE'}` to write {folder} anew"
    if not stage:
        remedy += ", STAGE being the one of dvc.yaml that has it among its outs"
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(sums, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        return
    except ValueError as error:
        raise MtbertError(f"{path}: damaged ({error}); {remedy}") from None
    for name in names or sums:
        file = folder / name
        if not file.is_file():
            raise MtbertError(f"{file}: not found; {remedy}")
        if sha256_file(file) != sums.get(name):
            raise MtbertError(f"{file}: its bytes changed since it was written (sha256 differs); {remedy}")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a checksum of itself, so that a changed digit shows; `unsealed` takes it off again."""
    return {**value, "seal": _digest(value)}


def unsealed(value: Any) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: the content is not that which was sealed.
    """
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    content = {key: part for key, part in value.items() if key != "seal"}
    if value.get("seal") != _digest(content):
        raise ValueError("its content changed since it was written")
    return content


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
