"""Results of a bundle's run are taken if they were made from this graph's inputs; otherwise one error, and nothing changes."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mtbert.bundle import take
from mtbert.bundle.remote import bring_back
from mtbert.errors import MtbertError
from mtbert.pipeline.provenance import data_hash
from stages import evaluate
from tests.stage_fixtures import write_params

MANIFEST = {"commit": "commit abc", "fp16": False}
Plant = Callable[[Path], object]  # changes the results in a folder, or the project


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `dvc commit` would be called with."""
    seen: list[str] = []

    def call(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
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
    manifest = MANIFEST | {"prepared": data_hash([Path("data/prepared")])}
    (out / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
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


def test_in_a_fresh_clone_the_remedy_trains_nothing(project: Path, results: Path) -> None:
    for folder in ("build", "data/prepared"):
        shutil.rmtree(project / folder)
    with pytest.raises(MtbertError, match=r"^data/prepared/train: not found; run `dvc repro prepare`$"):
        take.main(results)


def _spoiled(split: str) -> Plant:
    """Prepared data that have changed since the bundle was packed."""

    def plant(_results: Path) -> None:
        path = next(Path("data/prepared", split).iterdir())
        path.write_bytes(path.read_bytes() + b" ")

    return plant


def _manifest(text: str) -> Plant:
    return lambda results: (results / "bundle.json").write_text(text, encoding="utf-8")


def _flipped(results: Path) -> None:
    archive = results / "runs/baseline.tar.gz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)


def _sign(archive: Path) -> None:
    archive.with_name(f"{archive.name}.sha256").write_text(hashlib.sha256(archive.read_bytes()).hexdigest())


def _repacked(change: Plant) -> Plant:
    """An archive that was damaged before its checksum was written."""

    def plant(results: Path) -> None:
        archive, inside = results / "runs/baseline.tar.gz", results / "inside"
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(inside)
        change(inside)
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(inside, ".")
        _sign(archive)

    return plant


def _outside(results: Path) -> None:
    archive = results / "runs/baseline.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    _sign(archive)


def _of_a_study(results: Path) -> None:
    (results / "runs/gone").mkdir()
    for file in list((results / "runs").glob("baseline.*")):
        file.rename(results / "runs/gone" / file.name)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (
            lambda _: write_params(Path(), baseline={"learning_rate": 0.5}),
            r"baseline was not made from this graph's inputs: plan is .*; restore .*\(commit abc\)",
        ),
        (_spoiled("train"), r"baseline was not made from this graph's inputs: data is "),
        (_spoiled("test"), r"baseline was not made from this graph's inputs: prepared is "),
        (
            _manifest(json.dumps(MANIFEST | {"fp16": True, "prepared": ""})),
            "`mtbert bundle --fp16` rounded.*pack again without --fp16",
        ),
        (_manifest("[1]"), r"bundle\.json: cannot be read .*name the folder"),
        (lambda results: (results / "bundle.json").unlink(), r"bundle\.json: cannot be read .*name the folder"),
        (_flipped, r"baseline\.tar\.gz: damaged \(its sha256 is not that in baseline\.tar\.gz\.sha256\); copy it"),
        (
            _repacked(lambda inside: (inside / "results/baseline/metrics.json").write_text("{}")),
            r"baseline\.tar\.gz: damaged \(a file of results/baseline is missing or changed\); copy it",
        ),
        (
            _repacked(lambda inside: (inside / "models/baseline/model.safetensors").write_text("")),
            r"baseline\.tar\.gz: damaged \(the sha256 of models/baseline/model\.safetensors is not",
        ),
        (
            _repacked(lambda inside: (inside / "plots/baseline.csv").unlink()),
            r"baseline\.tar\.gz: damaged \(no plots/baseline\.csv in it\)",
        ),
        (
            _repacked(lambda inside: (inside / ".mtbert/log/train-baseline.json").write_text("{")),
            r"baseline\.tar\.gz: damaged \(\.mtbert/log/train-baseline\.json: ",
        ),
        (_outside, r"baseline\.tar\.gz: damaged \(\.\./outside: neither a file nor a folder below this one\)"),
        (
            lambda results: (results / "runs/baseline.tar.gz").unlink(),
            r"no run has finished there; run the bundle again",
        ),
        (
            _of_a_study,
            r"studies/gone/params\.yaml: not found, .*restore it, or move the results' folder runs/gone away",
        ),
    ],
)
def test_what_does_not_fit_is_one_error_and_changes_nothing(
    project: Path, results: Path, committed: list[str], plant: Plant, message: str
) -> None:
    plant(results)
    before = files(project)
    with pytest.raises(MtbertError, match=message):
        take.main(results)
    assert files(project) == before and not committed


def test_a_file_stays_until_its_successor_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plots").mkdir()
    Path("plots/baseline.csv").write_text("old", encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        take._install("baseline", tmp_path / "none", "commit abc")
    assert Path("plots/baseline.csv").read_text(encoding="utf-8") == "old"
