"""train leaves a record of what made the run."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from mtbert.model.store import read_config
from mtbert.params import load_params
from stages import train


def test_the_record_says_what_made_the_run(trained: Path) -> None:
    record = json.loads((trained / "models/baseline/record.json").read_text(encoding="utf-8"))
    assert record["code"].startswith(("commit ", "not under git"))
    assert record["command"] == "python -m stages.train baseline"
    assert record["settings"] == load_params(trained / "params.yaml").run("baseline").model_dump()
    assert record["parent"] == {
        "folder": "models/pretrained",
        "sha256": read_config(trained / "models/pretrained")["sha256"],
    }
    assert record["requirements_sha256"] is None, "the tiny project has no lock file"
    assert len(record["data"]) == 24
    assert record["seconds"] > 0


def test_tasks_are_trained_in_the_run_s_order(project: Path, change: Callable[..., None]) -> None:
    change(sampler_sequential={"tasks": ["sts", "sst", "quora"]})
    train.main("sampler_sequential")
    with (project / "models/sampler_sequential/steps.csv").open(encoding="utf-8") as file:
        order = [row["task"] for row in csv.DictReader(file)]
    assert order == ["sts"] * 2 + ["sst"] * 2 + ["quora"] * 2
