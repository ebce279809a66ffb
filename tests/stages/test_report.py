"""The page of the profile's runs: every run of params.yaml, and times only of runs trained on this machine."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from stages import evaluate, report, statistics

FOLDER = Path("reports/sample")


@pytest.fixture
def alone(project: Path, change: Callable[..., None]) -> Path:
    """The project with `baseline` as its only run, trained and evaluated."""
    change(only=["baseline"])
    evaluate.main("baseline")
    statistics.main()
    return project


def written(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_every_run_must_have_results(project: Path) -> None:
    """Without any results, the error names the first run of params.yaml."""
    with pytest.raises(MtbertError, match=r"results/baseline/metrics\.json: .* run `dvc repro evaluate@baseline`"):
        report.main()
    evaluate.main("baseline")
    with pytest.raises(MtbertError, match="run `dvc repro evaluate@key_update_1`"):
        report.main()


def test_the_page_shows_provenance(alone: Path) -> None:
    report.main()
    scores = json.loads((alone / "metrics/baseline.json").read_text(encoding="utf-8"))
    assert written("metrics.json")["baseline"]["overall"] == pytest.approx(scores["overall"])
    provenance, record = written("provenance.json"), json.loads((alone / "results/baseline/record.json").read_bytes())
    assert provenance["Profile"] == "sample"
    run = provenance["Runs"]["baseline"]
    assert {key: run[key] for key in ("data", "weights", "parents", "threads")} == {
        key: record[key] for key in ("data", "weights", "parents", "threads")
    }
    assert run["seconds"] > 0
    assert run["requirements_sha256"] is None, "the tiny project has no lock file"
    assert record["weights"] in (FOLDER / "provenance.json").read_text(encoding="utf-8")
    assert "baseline" in (FOLDER / "index.html").read_text(encoding="utf-8")


def test_times_of_other_machines_and_other_weights_are_not_ours(alone: Path) -> None:
    report.main()
    ours, scores = written("provenance.json"), written("metrics.json")
    path = alone / ".mtbert/log/train-baseline.json"
    log = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(log | {"weights": "0" * 64}), encoding="utf-8")
    report.main()
    other = written("provenance.json")
    shutil.rmtree(alone / ".mtbert")
    report.main()
    assert written("provenance.json") == other
    assert written("metrics.json") == scores
    differing = {key for key, value in ours["Runs"]["baseline"].items() if other["Runs"]["baseline"][key] != value}
    assert differing == {"commit", "machine", "seconds", "tokens_per_second", "finished", "requirements_sha256"}
    assert (
        other["Runs"]["baseline"]["seconds"] == other["Trained by"].removesuffix(" (all runs)") == "not recorded here"
    )


def test_claims_about_other_runs_are_not_run(alone: Path) -> None:
    report.main()
    found = written("findings.json")
    assert (found["profile"], found["generated"]) == ("sample", True)
    verdicts = {claim["claim"]: claim["verdict"] for claim in found["claims"]}
    open_ = [claim for claim, verdict in verdicts.items() if verdict != "not run"]
    assert len(open_) == 2
    assert all("converge" in claim and verdicts[claim] == "cannot tell" for claim in open_), "of one run, one epoch"
    assert "The data are generated" in (FOLDER / "findings.md").read_text(encoding="utf-8")
