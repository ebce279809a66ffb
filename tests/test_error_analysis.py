"""`mtbert errors`: the findings of a run on a terminal and as JSON."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mtbert import error_analysis
from mtbert.cli import app
from mtbert.errors import MtbertError
from mtbert.files import atomic_json
from mtbert.seal import seal
from mtbert.tabular import write_csv

ROWS = 100


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is wrong on every sentence with a negation; the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/mine"
    atomic_json(
        folder / "metrics.json",
        {"dev": {"sst": {"accuracy": 0.5, "n": ROWS}}, "test": {}, "training": {"tasks": ["sst"]}, "parameters": {}},
    )
    rows = [(row, "not [bold]good" if row % 2 else "a good film", 3, 3 - row % 2, 0.9) for row in range(ROWS)]
    write_csv(folder / "examples/sst-dev.csv", ["id", "sentence1", "label", "prediction", "score"], rows)
    seal(folder)
    return tmp_path


def test_the_findings_and_slices() -> None:
    console = Console(width=200, record=True)
    error_analysis.main("mine", [], {}, console=console)
    text = console.export_text()
    assert text.startswith("sst (100 dev examples)\nOverconfident by 40.0 percentage points")
    assert "with a negation      50  1.000 (0.929 to 1.000)  1.000 (0.899 to 1.000)       < 0.001" in text


def test_errors_name_the_remedy() -> None:
    with pytest.raises(MtbertError, match="no run is called 'min'; did you mean 'mine'"):
        error_analysis.main("min", [], {})
    with pytest.raises(MtbertError, match="mine has no dev predictions of a task 'ssst'; did you mean 'sst'"):
        error_analysis.main("mine", [], {}, task="ssst")


def test_a_task_or_run_that_params_yaml_no_longer_declares(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "results/mine/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    atomic_json(path, metrics | {"dev": {**metrics["dev"], "topic": {"accuracy": 0.5, "n": 1}}})
    seal(path.parent)
    error_analysis.main("mine", [], {})
    assert "does not declare topic, of which mine has results; left out" in capsys.readouterr().err
    atomic_json(path, metrics | {"dev": {"topic": {"accuracy": 0.5, "n": 1}}})
    seal(path.parent)
    with pytest.raises(MtbertError, match="does not declare topic, of which mine has results; declare it there again"):
        error_analysis.main("mine", [], {})
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(MtbertError, match=r"after declaring mine under runs in params\.yaml again, or name a run"):
        error_analysis.main("mine", [], {})


def test_the_command_prints_json(root: Path, project: Path) -> None:
    (project / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    done = CliRunner().invoke(app, ["errors", "mine", "--task", "sst", "--json", "--project", str(project)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["level"] == 0.95 and found["tasks"]["sst"]["examples"] == ROWS
    assert found["tasks"]["sst"]["runs"]["mine"]["ordinal"]["within_one"]["value"] == 1
    done = CliRunner().invoke(app, ["errors", "baseline", "--project", str(project)])
    assert done.exit_code == 1 and "run `dvc repro evaluate@baseline`" in done.output
