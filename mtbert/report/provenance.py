"""Provenance of data, encoder and runs: provenance.json, and the rows of it that the page shows."""

from collections.abc import Mapping
from typing import Any

from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, raw_name

UNKNOWN, UNTIMED = "not recorded", "not recorded here"
COMPUTE = ("device", "precision", "threads", "torch")
LOGGED = ("commit", "machine", "seconds", "tokens_per_second", "finished")
SETTINGS = ("epochs", "epoch_end", "batch_size", "learning_rate", "seed")


def sources(source: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, str]:
    """Rows for the data files and the encoder. A missing file is shown as absent, a missing field as not recorded.

    Args:
        source: source.json, written by the fetch stage.
        encoder: config.json, written by the encoder stage.
    """
    files, origin = source.get("files", {}), encoder.get("source", {})
    names = dict.fromkeys([*(raw_name(task, split) for task in TASKS.values() for split in SPLITS), *files])
    fields = {key: origin.get(key, UNKNOWN) for key in ("name", "sha256")} | origin
    return {
        "Data": source.get("source", UNKNOWN),
        **{f"data/raw/{name}": f"sha256 {files[name]['sha256']}" if name in files else "absent" for name in names},
        "Encoder": ", ".join(f"{key} {value}" for key, value in fields.items()),
        "Encoder, translated": f"sha256 {encoder.get('sha256', UNKNOWN)}",
    }


def by_run(
    records: Mapping[str, Mapping[str, Any]], times: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """For each run: data, weights, the settings of its budget, device and precision, and the log of its training.

    Args:
        records: record.json of each run.
        times: by run, what training logged on this machine (commit, machine, seconds, ...); a run may be missing.
    """
    return {
        run: {
            "command": record.get("command", UNKNOWN),
            "requirements_sha256": times.get(run, {}).get("requirements_sha256", UNTIMED),
            "data": record.get("data", UNKNOWN),
            "parents": record.get("parents", UNKNOWN),
            "weights": record.get("weights", UNKNOWN),
            **{key: record.get("settings", {}).get(key, UNKNOWN) for key in SETTINGS},
            **{key: record.get(key, UNKNOWN) for key in COMPUTE},
            **{key: times.get(run, {}).get(key, UNTIMED) for key in LOGGED},
        }
        for run, record in records.items()
    }


def agreement(records: Mapping[str, Mapping[str, Any]], times: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Rows that show whether the runs agree in code, data, machine and precision, and their dates. See `by_run`."""
    computed = {
        run: {**record, "on": f"{record.get('device', UNKNOWN)}, {record.get('threads', UNKNOWN)} threads"}
        for run, record in records.items()
    }
    logged = {run: times.get(run, {}) for run in records}
    days = sorted({str(log["finished"]) for log in logged.values() if "finished" in log})
    return {
        "Trained by": _values("commit", logged, UNTIMED),
        "Trained on": _values("data", computed),
        "Machine": _values("machine", logged, UNTIMED),
        "Computed on": _values("on", computed),
        "Precision": _values("precision", computed),
        "Trained": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else UNTIMED,
    }


def _values(key: str, facts_by_run: Mapping[str, Mapping[str, Any]], missing: str = UNKNOWN) -> str:
    runs: dict[str, list[str]] = {}
    for run, facts in facts_by_run.items():
        runs.setdefault(str(facts.get(key, missing)), []).append(run)
    if len(runs) == 1:
        return f"{next(iter(runs))} (all runs)"
    return "the runs differ: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in runs.items())
