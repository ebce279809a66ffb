"""A study's provenance and its table of training, from its results and the logs in its folder."""

import json
import shutil
from pathlib import Path

import pytest

from mtbert.pipeline.planning import refresh_study
from mtbert.report.text import read_table
from stages import evaluate, provenance


def test_steps_seconds_and_machine_of_a_study(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate.main("baseline")
    study = project / "studies/mine"
    log = study / ".mtbert/log/train-again.json"
    log.parent.mkdir(parents=True)
    shutil.copytree("results/baseline", study / "results/again")
    shutil.copy(".mtbert/log/train-baseline.json", log)
    (study / "params.yaml").write_text("{runs: {again: {from: baseline}}, tables: {scores: {Baseline: again}}}")
    refresh_study(study, project)
    monkeypatch.chdir(study)
    report = Path("reports/sample")

    provenance.main()
    logged, found = json.loads(log.read_bytes()), json.loads((report / "provenance.json").read_bytes())
    run = found["Runs"]["again"]
    assert [run[key] for key in ("seconds", "machine")] == [logged["seconds"], logged["machine"]]
    assert found["Machine"] == f"{logged['machine']} (all runs)"
    amount = json.loads(Path("results/again/metrics.json").read_bytes())["training"]
    counts = (f"{amount['steps']:,}", f"{amount['tokens']:,}")
    (row,) = read_table(report / "tables/training.json").rows
    assert row == ("Baseline", *counts, f"{logged['seconds']:,.0f}", "cpu", logged["machine"])

    log.unlink()  # a run that was trained elsewhere
    provenance.main()
    assert read_table(report / "tables/training.json").rows == [("Baseline", *counts, "–", "cpu", "–")]
    assert "not recorded here" in (report / "provenance.json").read_text(encoding="utf-8")
