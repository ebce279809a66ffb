"""Provenance: what each run was made from, whether the runs agree, and what is missing."""

from typing import Any

from mtbert.report.provenance import agreement, by_run, sources

SETTINGS = {"epochs": 2, "epoch_end": "depletion", "batch_size": 16, "learning_rate": 2e-4, "seed": 7, "tasks": ["sst"]}


def record(**changes: Any) -> dict[str, Any]:
    parent = {"folder": "models/pretrained", "sha256": "ab"}
    made = {"data": "d1", "parents": [parent], "settings": SETTINGS, "weights": "cd", "device": "cpu", "threads": 2}
    return made | {"precision": "fp32"} | changes


LOG = {"commit": "c1", "machine": "one", "seconds": 9.5, "tokens_per_second": 1.0, "finished": "2026-01-02"}
LOG |= {"requirements_sha256": "ef"}


def test_each_run_has_its_settings_parents_and_log() -> None:
    found = by_run({"a": record(), "b": record()}, {"a": LOG})
    run = found["a"]
    assert (run["commit"], run["data"], run["seconds"], run["parents"][0]["sha256"]) == ("c1", "d1", 9.5, "ab")
    assert (run["weights"], run["threads"], run["torch"]) == ("cd", 2, "not recorded")
    kept = {key: value for key, value in SETTINGS.items() if key != "tasks"}
    assert {key: run[key] for key in kept} == kept
    assert "tasks" not in run
    assert [one["requirements_sha256"] for one in found.values()] == ["ef", "not recorded here"]
    assert (found["b"]["commit"], found["b"]["seconds"]) == ("not recorded here", "not recorded here")


def test_runs_that_agree_and_runs_that_differ() -> None:
    runs, times = {"a": record(), "b": record()}, {"a": LOG, "b": LOG}
    assert agreement(runs, times) == {
        "Trained by": "c1 (all runs)",
        "Trained on": "d1 (all runs)",
        "Machine": "one (all runs)",
        "Computed on": "cpu, 2 threads (all runs)",
        "Precision": "fp32 (all runs)",
        "Trained": "2026-01-02",
    }
    found = agreement(runs | {"c": record(threads=4)}, times | {"b": LOG | {"commit": "c2", "finished": "2026-02-03"}})
    assert found["Trained by"] == "the runs differ: c1 (a); c2 (b); not recorded here (c)"
    assert found["Computed on"] == "the runs differ: cpu, 2 threads (a, b); cpu, 4 threads (c)"
    assert found["Trained"] == "2026-01-02 to 2026-02-03"
    assert agreement({"a": {}}, {})["Trained on"] == "not recorded (all runs)"


def test_absent_files_and_encoder_fields_are_shown_as_such() -> None:
    found = sources({"source": "cs224n", "files": {"sst-train.csv": {"sha256": "12"}}}, {"source": {"name": "x"}})
    assert found["Data"] == "cs224n"
    assert found["data/raw/sst-train.csv"] == "sha256 12"
    assert found["data/raw/quora-test.csv"] == "absent"
    assert len([key for key in found if key.startswith("data/raw/")]) == 9
    assert found["Encoder"] == "name x, sha256 not recorded"
    assert found["Encoder, translated"] == "sha256 not recorded"
