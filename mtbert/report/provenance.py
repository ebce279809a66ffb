"""Where everything came from: provenance.json, and the rows of it that the page shows."""

from collections.abc import Mapping
from typing import Any

from mtbert.data.tasks import SPLITS, TASKS, raw_name

UNKNOWN = "not recorded"
COMPUTE = ("device", "precision", "threads", "torch")
SETTINGS = ("epochs", "epoch_end", "batch_size", "learning_rate", "seed")


def sources(source: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, str]:
    """The data's files and the encoder as rows; a file or a field that is not there is shown as that.

    Args:
        source: what the fetch stage wrote to source.json.
        encoder: the config.json of the encoder stage.
    """
    files, origin = source.get("files", {}), encoder.get("source", {})
    names = [raw_name(task, split) for task in TASKS.values() for split in SPLITS]
    fields = {key: origin.get(key, UNKNOWN) for key in ("name", "sha256")} | origin
    return {
        "Data": source.get("source", UNKNOWN),
        **{f"data/raw/{name}": f"sha256 {files[name]['sha256']}" if name in files else "absent" for name in names},
        "Encoder": ", ".join(f"{key} {value}" for key, value in fields.items()),
        "Encoder, translated": f"sha256 {encoder.get('sha256', UNKNOWN)}",
    }


def by_run(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each run what made it: code, data, weights, the settings that tell budgets apart, where it ran, and its time."""
    return {
        run: {
            "code": record.get("code", UNKNOWN),
            "command": record.get("command", UNKNOWN),
            "requirements_sha256": record.get("requirements_sha256"),
            "data": record.get("data", UNKNOWN),
            "parent": record.get("parent", UNKNOWN),
            "weights": record.get("weights", UNKNOWN),
            **{key: record.get("settings", {}).get(key, UNKNOWN) for key in SETTINGS},
            **{key: record.get(key, UNKNOWN) for key in COMPUTE},
            "seconds": record["seconds"],
        }
        for run, record in records.items()
    }


def agreement(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Rows that say by which code and on which data the runs were trained, and so whether they agree."""
    rows = {"Trained by": "code", "Trained on": "data"}
    return {title: _told(key, records) for title, key in rows.items()}


def _told(key: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    runs: dict[str, list[str]] = {}
    for run, record in records.items():
        runs.setdefault(str(record.get(key, UNKNOWN)), []).append(run)
    if len(runs) == 1:
        return f"{next(iter(runs))} (all runs)"
    return "the runs differ: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in runs.items())
