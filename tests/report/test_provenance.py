"""Provenance says what made each run, whether the runs agree, and what is not there."""

from typing import Any

from mtbert.report.provenance import agreement, by_run, sources

SETTINGS = {"epochs": 2, "epoch_end": "depletion", "batch_size": 16, "learning_rate": 2e-4, "seed": 7, "tasks": ["sst"]}


def record(**changes: Any) -> dict[str, Any]:
    parent = {"folder": "models/pretrained", "sha256": "ab"}
    return {
        "code": "commit 1",
        "data": "d1",
        "parent": parent,
        "settings": SETTINGS,
        "seconds": 9.5,
        "weights": "cd",
        "threads": 2,
    } | changes


def test_each_run_has_its_code_settings_time_and_parent() -> None:
    (run,) = by_run({"baseline": record()}).values()
    assert (run["code"], run["data"], run["seconds"], run["parent"]["sha256"]) == ("commit 1", "d1", 9.5, "ab")
    assert (run["weights"], run["threads"], run["torch"]) == ("cd", 2, "not recorded")
    kept = {key: value for key, value in SETTINGS.items() if key != "tasks"}
    assert {key: run[key] for key in kept} == kept
    assert "tasks" not in run


def test_runs_of_one_commit_and_of_several() -> None:
    runs = {"a": record(), "b": record()}
    assert agreement(runs) == {"Trained by": "commit 1 (all runs)", "Trained on": "d1 (all runs)"}
    runs["c"] = record(code="commit 2 with uncommitted changes")
    assert agreement(runs) == {
        "Trained by": "the runs differ: commit 1 (a, b); commit 2 with uncommitted changes (c)",
        "Trained on": "d1 (all runs)",
    }


def test_a_record_of_older_code_is_shown_as_such() -> None:
    assert by_run({"a": {"seconds": 1.0}})["a"]["code"] == "not recorded"
    assert agreement({"a": record(), "b": {"seconds": 1.0}})["Trained by"].endswith("commit 1 (a); not recorded (b)")


def test_absent_files_and_encoder_fields_are_shown_as_such() -> None:
    found = sources({"source": "cs224n", "files": {"sst-train.csv": {"sha256": "12"}}}, {"source": {"name": "x"}})
    assert found["Data"] == "cs224n"
    assert found["data/raw/sst-train.csv"] == "sha256 12"
    assert found["data/raw/quora-test.csv"] == "absent"
    assert len([key for key in found if key.startswith("data/raw/")]) == 9
    assert found["Encoder"] == "name x, sha256 not recorded"
    assert found["Encoder, translated"] == "sha256 not recorded"
