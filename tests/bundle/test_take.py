"""Results of a bundle's run are taken if they were made from this graph's inputs; otherwise one error, and nothing changes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.bundle import take
from mtbert.bundle.remote import bring_back
from mtbert.errors import MtbertError
from stages import evaluate

MANIFEST = {"commit": "commit abc", "fp16": False}


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `dvc commit` would be called with."""
    seen: list[str] = []

    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        seen.extend(command[6:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(take.subprocess, "run", call)
    return seen


@pytest.fixture
def results(project: Path, tmp_path: Path, committed: list[str]) -> Path:
    """What a bundle with the run `baseline` wrote; the project itself has no trained run any more."""
    evaluate.main("baseline")
    out = tmp_path / "out"
    bring_back(out, "baseline", weights=False)
    (out / "bundle.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    for folder in ("models/baseline", "results", "metrics", "plots", ".mtbert"):
        shutil.rmtree(project / folder)
    return out


def files(project: Path) -> set[str]:
    folders = ("models", "results", "metrics", "plots", ".mtbert")
    return {str(path.relative_to(project)) for name in folders for path in (project / name).rglob("*")}


def test_the_results_and_the_log_are_put_in_place(
    project: Path, results: Path, committed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    take.main(results)
    assert committed == ["train@baseline", "evaluate@baseline"]
    expected = {
        "models/baseline/record.json",
        "results/baseline/metrics.json",
        "metrics/baseline.json",
        "plots/baseline.csv",
    }
    assert expected < files(project) and "models/baseline/model.safetensors" not in files(project)
    assert json.loads((project / ".mtbert/log/train-baseline.json").read_text())["commit"] == "commit abc"
    assert "Without weights, for the report and comparisons only: baseline" in capsys.readouterr().out


def _other_settings(change: Callable[..., None], _results: Path) -> None:
    change(baseline={"learning_rate": 0.5})


def _other_data(_change: Any, _results: Path) -> None:
    path = next(Path("data/prepared/train").iterdir())
    path.write_bytes(path.read_bytes() + b" ")


def _rounded(_change: Any, results: Path) -> None:
    (results / "bundle.json").write_text(json.dumps(MANIFEST | {"fp16": True}), encoding="utf-8")


def _cut(_change: Any, results: Path) -> None:
    archive = results / "runs/baseline.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-2000])


def _none(_change: Any, results: Path) -> None:
    (results / "runs/baseline.tar.gz").unlink()


def _another_folder(_change: Any, results: Path) -> None:
    (results / "bundle.json").unlink()


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_other_settings, r"baseline was not made from this graph's inputs: plan is .*; restore .*\(commit abc\)"),
        (_other_data, r"baseline was not made from this graph's inputs: data is "),
        (_rounded, "`mtbert bundle --fp16` rounded.*pack again without --fp16"),
        (_cut, r"baseline\.tar\.gz: damaged"),
        (_none, r"no run has finished there; run the bundle again"),
        (_another_folder, r"bundle\.json: cannot be read .*name the folder"),
    ],
)
def test_what_does_not_fit_is_one_error_and_changes_nothing(
    project: Path, results: Path, committed: list[str], change: Callable[..., None],
    plant: Callable[[Any, Path], None], message: str,
) -> None:  # fmt: skip
    plant(change, results)
    before = files(project)
    with pytest.raises(MtbertError, match=message):
        take.main(results)
    assert files(project) == before and not committed
