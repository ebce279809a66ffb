"""What made an output: every stage writes it down, and weights that disagree with it are not evaluated."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file
from mtbert.seal import sealed, unsealed
from mtbert.training.fingerprint import fingerprint

LOCK, RECORD = Path("requirements/runtime.txt"), "record.json"


def origin(stage: str, settings: Mapping[str, Any], data: Path | None = None, **more: Any) -> dict[str, Any]:
    """The record of an output: commit, command, lock file and settings (seeds among them), and what the stage adds.

    Args:
        stage: the module and its arguments, such as "train baseline".
        data: the folder of data that it wrote or read.
        more: what else applies: parent, weights, device, precision, threads, torch, machine.
    """
    return {
        "code": commit(),
        "command": f"python -m stages.{stage}",
        "requirements_sha256": sha256_file(LOCK) if LOCK.is_file() else None,
        "settings": dict(settings),
        **({} if data is None else {"data": data_hash(data)}),
        **more,
    }


def write_beside(folder: Path, record: Mapping[str, Any]) -> None:
    """FOLDER.record.json. Not within: a commit in a folder that others depend on would make them stale at each commit."""
    atomic_json(folder.with_name(f"{folder.name}.{RECORD}"), sealed(record))


def data_hash(folder: Path) -> str:
    """24 hex digits over names and contents of a folder's files."""
    return fingerprint({}, folder, [])


def check_record(folder: Path, now: Mapping[str, Any]) -> None:
    """Compare the record in a trained model's folder with what is there now.

    Args:
        now: by the record's keys, what they must be.

    Raises:
        MtbertError: the record is missing or damaged, or disagrees; names all that disagrees.
    """
    path = folder / RECORD
    try:
        record = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro` to make {folder} anew") from None
    differing = [_told(key, record.get(key), value) for key, value in now.items() if record.get(key) != value]
    if differing:
        what = "; ".join(differing)
        raise MtbertError(f"{path}: disagrees with what is there: {what}; run `dvc repro` to make {folder} anew")


def _told(key: str, recorded: Any, value: Any) -> str:
    if isinstance(recorded, dict) and isinstance(value, dict):
        return f"{key} ({', '.join(name for name in value if recorded.get(name) != value[name])})"
    return f"{key} is {value}, recorded is {recorded}"


def commit() -> str:
    """The commit of the code, and whether it had uncommitted changes; `not under git` for a downloaded copy."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        command = ["git", "status", "--porcelain", "--", "mtbert", "stages"]
        changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"commit {head}" + (" with uncommitted changes" if changed else "")
