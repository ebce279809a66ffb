"""train leaves a record of what made the run."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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
    assert record["weights"] == read_config(trained / "models/baseline")["sha256"]
    assert (record["threads"], record["device"], record["precision"]) == (1, "cpu", "fp32")
    assert record["torch"] == torch.__version__
    assert record["seconds"] > 0


def test_tasks_are_trained_in_the_run_s_order(project: Path, change: Callable[..., None]) -> None:
    change(sampler_sequential={"tasks": ["sts", "sst", "quora"]})
    train.main("sampler_sequential")
    with (project / "models/sampler_sequential/steps.csv").open(encoding="utf-8") as file:
        order = [row["task"] for row in csv.DictReader(file)]
    assert order == ["sts"] * 2 + ["sst"] * 2 + ["quora"] * 2


def test_a_killed_run_goes_on_unless_something_that_determines_it_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a try looks for checkpoints: in the same folder for the same settings, in another for another max_tokens."""
    places = []

    def killed(*_: object, work: Path, **__: object) -> None:
        places.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", killed)
    for max_tokens in (256, 256, 255):
        text = (project / "params.yaml").read_text(encoding="utf-8")
        (project / "params.yaml").write_text(
            re.sub(r'"max_tokens": \d+', f'"max_tokens": {max_tokens}', text), encoding="utf-8"
        )
        with pytest.raises(KeyboardInterrupt):
            train.main("baseline")
    assert places[0] == places[1] != places[2]


def test_the_code_that_names_the_checkpoints_is_there() -> None:
    """A wrong path would be an empty folder to the fingerprint."""
    root = Path(train.__file__).parents[1]
    assert all((root / path).exists() for path in train.CODE)
    assert {"stages/train.py", "stages/models.py"} <= {path.as_posix() for path in train.CODE}
