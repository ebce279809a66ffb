"""Where everything came from: provenance.json, and the rows of it that the page shows."""

from collections.abc import Mapping
from typing import Any

from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, raw_name

UNKNOWN, UNTIMED = "not recorded", "not recorded here"
COMPUTE = ("device", "precision", "threads", "torch")
LOGGED = ("commit", "machine", "seconds", "tokens_per_second", "finished")
SETTINGS = ("epochs", "epoch_end", "batch_size", "learning_rate", "seed")


def sources(source: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, str]:
    """The data's files and the encoder as rows; a file or a field that is not there is shown as that.

    Args:
        source: what the fetch stage wrote to source.json.
        encoder: the config.json of the encoder stage.
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
    """Of each run what made it: data, weights, the settings that tell budgets apart, how it was computed, and its log.

    Args:
        records: by run, its record.json.
        times: by run, what the trainer logged on this machine (commit, machine, seconds, ...); a run may be missing.
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
    """Rows that say how the runs were made, and so whether they agree: code, data, machine, precision, dates. See `by_run`."""
    computed = {
        run: {**record, "on": f"{record.get('device', UNKNOWN)}, {record.get('threads', UNKNOWN)} threads"}
        for run, record in records.items()
    }
    logged = {run: times.get(run, {}) for run in records}
    days = sorted({str(log["finished"]) for log in logged.values() if "finished" in log})
    return {
        "Trained by": _told("commit", logged, UNTIMED),
        "Trained on": _told("data", computed),
        "Machine": _told("machine", logged, UNTIMED),
        "Computed on": _told("on", computed),
        "Precision": _told("precision", computed),
        "Trained": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else UNTIMED,
    }


def _told(key: str, about: Mapping[str, Mapping[str, Any]], missing: str = UNKNOWN) -> str:
    runs: dict[str, list[str]] = {}
    for run, facts in about.items():
        runs.setdefault(str(facts.get(key, missing)), []).append(run)
    if len(runs) == 1:
        return f"{next(iter(runs))} (all runs)"
    return "the runs differ: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in runs.items())
