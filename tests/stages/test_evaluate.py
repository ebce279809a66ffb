"""evaluate writes scores for labelled splits and leaderboard files for all, and refuses weights that do not match their record."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import accuracy
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import RECORD, plan_hash
from mtbert.pretrained.store import load_model, save_model
from mtbert.seal import seal, sealed
from mtbert.tasks.paper import QUORA
from stages import encoder, evaluate, plan


def test_an_unlabelled_test_split_has_leaderboard_files_and_no_score(project: Path) -> None:
    (project / "data/prepared/test/quora/labels.npy").unlink()
    seal(project / "data/prepared/test")
    evaluate.main("baseline")
    results = project / "results/baseline"
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["dev"]) == {"sst", "quora", "sts", "overall"}
    assert set(metrics["test"]) == {"sst", "sts"}, "no Quora score, and so no overall score"
    (file,) = (results / "predictions").glob("*para*test*.csv")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == QUORA.course.header if QUORA.course else None
    assert len(lines) == 1 + 8


def test_the_scores_are_those_of_the_examples_beside_them(project: Path) -> None:
    evaluate.main("baseline")
    results = project / "results/baseline"
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    with (results / "examples/sst-dev.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = accuracy([float(row["label"]) for row in rows], [float(row["prediction"]) for row in rows])
    assert metrics["dev"]["sst"]["accuracy"] == pytest.approx(found)
    table = pd.read_csv(results / "examples/sts-dev.csv")
    assert metrics["dev"]["sts"]["pearson"] == pytest.approx(table["label"].corr(table["prediction"]), rel=0.01)
    assert (results / "record.json").read_bytes() == (project / "models/baseline/record.json").read_bytes()


def test_a_missing_split_is_skipped(project: Path) -> None:
    (project / "data/prepared/test/quora").rename(project / "elsewhere")
    seal(project / "data/prepared/test")
    evaluate.main("baseline")
    assert not list((project / "results/baseline").rglob("*para*test*"))


def other_data(project: Path) -> None:
    with (project / "data/prepared/dev/sst/examples.csv").open("a", encoding="utf-8") as file:
        file.write("another,row,0\n")
    seal(project / "data/prepared/dev")


def other_weights(project: Path) -> None:
    tensors, config = load_model(project / "models/baseline")
    del config["sha256"]
    save_model(project / "models/baseline", {name: tensor + 1 for name, tensor in tensors.items()}, config)


def other_parent(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace('"random": {"seed": 1', '"random": {"seed": 2'), encoding="utf-8")
    plan.main()
    encoder.main()


def other_settings(project: Path) -> None:
    path = project / "models/baseline" / RECORD
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["seal"]
    record["settings"]["batch_size"] += 1
    path.write_text(json.dumps(sealed(record)), encoding="utf-8")


def record_damaged(project: Path) -> None:
    path = project / "models/baseline" / RECORD
    path.write_text(path.read_text(encoding="utf-8").replace('"threads": 1', '"threads": 2'), encoding="utf-8")


def record_lost(project: Path) -> None:
    (project / "models/baseline" / RECORD).unlink()


FORCE = "--force --single-item "


@pytest.mark.parametrize(
    ("change", "message", "options"),
    [
        (other_data, r"does not match the present inputs: data is [0-9a-f]{24}, recorded as [0-9a-f]{24};", ""),
        (other_weights, r"does not match the present inputs: weights is [0-9a-f]{64}, recorded as [0-9a-f]{64};", ""),
        (other_parent, r"does not match the present inputs: parents \(models/pretrained\);", FORCE),
        (other_settings, r"does not match the present inputs: settings \(batch_size\);", ""),
        (record_damaged, r"cannot be read \(its content changed since it was written\);", FORCE),
        (record_lost, r"cannot be read \(.*No such file.*\);", FORCE),
    ],
)
def test_weights_that_do_not_match_their_record_are_refused(
    project: Path, change: Callable[[Path], None], message: str, options: str
) -> None:
    change(project)
    with pytest.raises(
        MtbertError, match=rf"^models/baseline/record\.json: {message} run `dvc repro {options}train@baseline`$"
    ):
        evaluate.main("baseline")
    assert not (project / "results/baseline").exists()


def test_weights_whose_parent_was_not_kept_are_evaluated(project: Path) -> None:
    shutil.rmtree(project / "models/pretrained")
    evaluate.main("baseline")
    assert (project / "results/baseline/metrics.json").is_file()


def test_the_evaluation_has_a_record_of_its_own(project: Path) -> None:
    evaluate.main("baseline")
    trained = json.loads((project / "results/baseline/record.json").read_text(encoding="utf-8"))
    record = json.loads((project / "results/baseline/evaluation.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m stages.evaluate baseline"
    assert record["parents"] == [{"folder": "models/baseline", "sha256": trained["weights"]}]
    same = ("data", "settings", "torch", "threads", "device")
    assert {key: record[key] for key in same} == {key: trained[key] for key in same}
    assert record["plan"] == plan_hash(planned("evaluate", "baseline")) != trained["plan"]
