"""A folder's list of checksums. DVC trusts a read-only file of its cache unread, so a stage checks what it is given."""

import json
from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file

SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Write the sha256 of every other file in `folder` into its sha256.json."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL)
    atomic_json(folder / SEAL, {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def check_seal(folder: Path, *names: str) -> None:
    """Compare the folder's files, or only those named, with its sha256.json; a folder made by hand has none and passes.

    Raises:
        MtbertError: names the file whose bytes are not those that were written.
    """
    path = folder / SEAL
    remedy = f"remove {folder} and .dvc/cache, from where it would come back as it is, and run `dvc repro`"
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
