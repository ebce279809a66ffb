"""Provenance of outputs. A record is part of the output and holds no time, so that equal inputs give equal bytes.
A log is kept outside the output and holds the time, the machine and the commit."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file
from mtbert.pipeline.paths import MODELS, PREPARED
from mtbert.pipeline.plans import planned
from mtbert.pretrained.store import CONFIG, read_config
from mtbert.seal import sealed, unsealed
from mtbert.training.compute import machine
from mtbert.training.fingerprint import fingerprint

REQUIREMENTS, RECORD = Path("requirements/runtime.txt"), "record.json"
PACKAGES = ("mtbert", "torch", "tokenizers", "numpy", "dvc")
EVALUATION = "evaluation.json"  # the evaluation's record; the training's is in the same folder
# The prepared data that training and evaluation read.
DATA = [PREPARED / "train", PREPARED / "dev", PREPARED / "tokenizer.json"]


def record(stage: str, name: str, **more: Any) -> dict[str, Any]:
    """The record of an output: its stage's settings, hashes of its plan and data, and `more` (parents, weights, precision)."""
    plan = planned(stage, name)
    settings = plan["settings"].get("run", plan["settings"])
    return {
        "command": f"python -m stages.{stage} {name}",
        "plan": plan_hash(plan),
        "settings": settings,
        "data": data_hash(),
        **more,
    }


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """Write a record, sealed with a checksum."""
    atomic_json(path, sealed(value))


def plan_hash(plan: Mapping[str, Any]) -> str:
    """24 hex digits over a stage's settings and code."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:24]


def data_hash(parts: Sequence[Path] = tuple(DATA)) -> str:
    """24 hex digits over the names and contents of files and of the files in folders."""
    return fingerprint({}, parts)


def read_record(folder: Path, stage: str) -> dict[str, Any]:
    """The record in a folder that a stage writes.

    Raises:
        MtbertError: the record is missing or damaged.
    """
    return read_sealed(folder / RECORD, f"run `dvc repro --force --single-item {stage}`")


def read_sealed(path: Path, advice: str) -> dict[str, Any]:
    """The record in a file.

    Args:
        advice: the remedy that an error names.

    Raises:
        MtbertError: the record is missing or damaged.
    """
    try:
        return unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); {advice}") from None


def differences(found: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between a record and present values, by the record's keys."""
    return [_difference(key, found.get(key), value) for key, value in now.items() if found.get(key) != value]


def weights_of(folder: Path) -> dict[str, Any]:
    """A model's folder and the checksum of its weights, as records name a parent."""
    return {"folder": str(folder), "sha256": read_config(folder)["sha256"]}


def check_trained(run: str, settings: Mapping[str, Any], weights: str, parents: Sequence[Path]) -> None:
    """Check that a trained model was made with the present settings, data and parent weights.

    Raises:
        MtbertError: the record is missing or damaged, or values differ; it lists all that differ.
    """
    now: dict[str, Any] = {"settings": settings, "data": data_hash(), "weights": weights}
    # A model may be evaluated where its parents were not kept.
    if all((folder / CONFIG).is_file() for folder in parents):
        now["parents"] = list(map(weights_of, parents))
    if differing := differences(read_record(MODELS / run, f"train@{run}"), now):
        # DVC does not track the weights of the run that an adapter starts from, so it needs --force.
        force = "--force --single-item " if any(line.startswith("parents ") for line in differing) else ""
        raise MtbertError(
            f"{MODELS / run / RECORD}: does not match the present inputs: {'; '.join(differing)}; run `dvc repro {force}train@{run}`"
        )


def check_current(run: str, key: str) -> None:
    """Check that a run was trained with the present settings, code and data, before another starts from it.

    Raises:
        MtbertError: names the key in params.yaml that refers to the run, and the command that trains it.
    """
    found = read_record(MODELS / run, f"train@{run}") if (MODELS / run).is_dir() else {}
    if found.get("plan") != plan_hash(planned("train", run)) or found.get("data") != data_hash():
        raise MtbertError(
            f"params.yaml: {key} is {run}, which is not trained yet with its present settings, code and data; "
            f"run `dvc repro train@{run}`, then the same command again"
        )


def write_log(work: Path, stage: str, name: str, weights: str, **more: Any) -> None:
    """Write WORK/log/STAGE-RUN.json: when, where and from which commit these weights were made. No stage depends on it."""
    made = {
        "weights": weights,
        "commit": commit(),
        "machine": machine(),
        "finished": datetime.now(UTC).date().isoformat(),
    }
    lock = sha256_file(REQUIREMENTS) if REQUIREMENTS.is_file() else None
    atomic_json(work / "log" / f"{stage}-{name}.json", {**made, "requirements_sha256": lock, **more})


def read_log(work: Path, stage: str, name: str, weights: str) -> dict[str, Any]:
    """The log of these weights; empty if they come from DVC's cache or another machine."""
    try:
        found: dict[str, Any] = json.loads((work / "log" / f"{stage}-{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if found.get("weights") == weights else {}


def read_logs(work: Path, records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The logs of the training of these runs, without those that were trained elsewhere.

    Args:
        records: record.json of each run.
    """
    found = {run: read_log(work, "train", run, made.get("weights", "")) for run, made in records.items()}
    return {run: log for run, log in found.items() if log}


def versions() -> str:
    """The versions of the packages that decide results, and of Python."""
    of_packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{of_packages}, Python {platform.python_version()}"


def commit() -> str:
    """The commit of the code, and whether there are uncommitted changes; `not under git` in a downloaded copy."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # In a study's folder there is no code: it is that of the checkout, which PYTHONPATH names.
        root = Path() if Path("stages").is_dir() else Path(__file__).parents[2]
        command = ["git", "status", "--porcelain", "--", str(root / "mtbert"), str(root / "stages")]
        changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"commit {head}" + (" with uncommitted changes" if changed else "")


def _difference(key: str, recorded: Any, value: Any) -> str:
    if key == "parents":
        changed = [parent["folder"] for parent in value if parent not in (recorded or [])]
        return f"{key} ({', '.join(changed) or 'their number'})"
    if isinstance(recorded, dict) and isinstance(value, dict):
        return f"{key} ({', '.join(name for name in value if recorded.get(name) != value[name])})"
    return f"{key} is {value}, recorded as {recorded}"
