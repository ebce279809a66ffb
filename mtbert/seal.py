"""Checksums of a folder and of a JSON object. DVC does not verify read-only files of its cache, so stages verify their inputs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file

SEAL = "sha256.json"


def seal(folder: Path, *names: str) -> None:
    """Write folder/sha256.json: the sha256 of every file in `folder`, or only of those named."""
    found = [folder / name for name in names] or sorted(folder.rglob("*"))
    files = (path for path in found if path.is_file() and path != folder / SEAL)
    atomic_json(folder / SEAL, {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def check_seal(folder: Path, *names: str) -> None:
    """Verify the folder's files, or only those named, against its sha256.json.

    Raises:
        MtbertError: names the file that is missing or changed.
    """
    path = folder / SEAL
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(sums, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; {remedy(folder)}") from None
    except (ValueError, RecursionError) as error:
        raise MtbertError(f"{path}: damaged ({error}); {remedy(folder, path)}") from None
    for name in names or sums:
        file = folder / name
        if not file.is_file():
            raise MtbertError(f"{file}: not found; {remedy(folder)}")
        if sha256_file(file) != sums.get(name):
            raise MtbertError(
                f"{file}: its bytes changed since it was written (sha256 differs); {remedy(folder, file)}"
            )


def remedy(folder: Path, damaged: Path | None = None) -> str:
    """How to restore a folder that a stage writes.

    Args:
        damaged: a file in it that is damaged, or is missing although DVC may consider the folder intact; None for a missing file.
    """
    stage = stage_of(folder)
    which = f", where STAGE is the stage that writes {folder}" if stage == "STAGE" else ""
    if damaged is None:
        return f"run `dvc repro {stage}`{which}"
    copy = _damaged_object(damaged) if damaged.is_file() else None
    first = f"remove {copy}, its copy in DVC's cache, then " if copy else ""
    # -f: DVC does not verify its cached files. -s: without it, -f would run all earlier stages too.
    return f"{first}run `dvc repro -f -s {stage}`{which}, then `dvc repro`"


def stage_of(folder: Path) -> str:
    """The stage that writes a folder, in the graph of the project or study that is the working directory; STAGE if none is known."""
    parent, name = folder.parent.name, folder.name
    if parent == "prepared":
        return stage_of(folder.parent)
    study = _in_study()  # which copies data and encoder, and converts as it trains
    by_parent = {"converted": "train@" if study else "convert@", "models": "train@", "results": "evaluate@"}
    own = {("data", "raw"): "fetch", ("data", "prepared"): "prepare", ("models", "pretrained"): "encoder"}
    if (parent, name) in own:
        return "inputs" if study else own[parent, name]
    return f"{by_parent[parent]}{name}" if parent in by_parent else "STAGE"


def _in_study() -> bool:
    return Path("../study.yaml").exists()


def _damaged_object(file: Path) -> Path | None:
    """The object in the project's DVC cache that has the file's bytes, but whose name is not their checksum."""
    data = file.read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    root = Path("../.." if _in_study() else "")
    for path in (root / ".dvc/cache/files/md5").glob("??/*"):
        if path.stat().st_size == len(data) and path.parent.name + path.name != md5 and path.read_bytes() == data:
            return path
    return None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with a checksum of its content under `seal`; `unsealed` verifies and removes it."""
    return {**value, "seal": _digest(value)}


def unsealed(value: Any) -> dict[str, Any]:
    """The object given to `sealed`.

    Raises:
        ValueError: the content changed.
    """
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    content = {key: part for key, part in value.items() if key != "seal"}
    if value.get("seal") != _digest(content):
        raise ValueError("its content changed since it was written")
    return content


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
