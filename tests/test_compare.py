"""`mtbert compare`: what differs between two runs, on a terminal and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mtbert import compare
from mtbert.cli import app
from mtbert.errors import MtbertError
from mtbert.evaluation.resampling import detectable
from mtbert.report.measure import measure
from mtbert.seal import seal
from mtbert.tabular import write_csv
from tests.processes import unread

RUNS = ("first", "second")
SST = [
    ("a film", 3, (3, 2)),
    ("another", 1, (1, 1)),
    ("a third", 2, (4, 2)),
    ("[bold]x", 0, (0, 1)),
    ("last", 4, (4, 1)),
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two evaluated runs, the first of them trained here; the current folder."""
    monkeypatch.chdir(tmp_path)
    for number, run in enumerate(RUNS):
        folder = tmp_path / "results" / run
        right = sum(label == guesses[number] for _, label, guesses in SST)
        metrics = {"dev": {"sst": {"accuracy": right / 5, "n": 5}}, "test": {}, "training": {}}
        settings = {"seed": 1 + number, "pooling": "mean", "adapter": {"rank": 4} if number else None}
        record = {"settings": settings, "data": "abc", "weights": str(number)}
        write(folder / "metrics.json", metrics | {"parameters": {"trainable": 1000 * (number + 1)}})
        write(folder / "record.json", record | {"device": "cpu", "threads": 1, "precision": "fp32"})
        rows = [(n, text, label, guesses[number], 0.9) for n, (text, label, guesses) in enumerate(SST)]
        write_csv(folder / "examples/sst-dev.csv", ["id", "sentence1", "label", "prediction", "score"], rows)
        seal(folder)
    write(tmp_path / ".mtbert/log/train-first.json", {"weights": "0", "seconds": 61.5, "tokens_per_second": 2000})
    write(tmp_path / "models/first/config.json", {})
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def compared(*arguments: Any, **options: Any) -> str:
    console = Console(width=100, record=True)
    compare.main(*arguments, RUNS, **options, console=console)
    return console.export_text()


def test_the_tables() -> None:
    lines = [line.split() for line in compared(*RUNS).splitlines()]
    assert ["seed", "1", "2"] in lines
    assert ["adapter.rank", "–", "4"] in lines
    assert not [line for line in lines if line[:1] == ["pooling"]]
    assert [line[:4] for line in lines if line[:1] == ["sst"]] == [["sst", "0.800", "0.400", "-0.400"]]
    assert ["Parameters", "trained", "1,000", "2,000"] in lines
    assert ["Training,", "seconds", "62", "–"] in lines
    assert ["sst:", "first", "alone", "is", "right", "on", "3", "examples,", "second", "alone", "on", "1"] in lines
    assert ["first", "0", "0", "1", "[bold]x"] in lines
    assert ["second", "2", "4", "2", "a", "third"] in lines


def test_as_many_examples_as_asked_for() -> None:
    assert "a film" in compared(*RUNS, examples=1) and "last" not in compared(*RUNS, examples=1)
    assert "a film" not in compared(*RUNS, examples=0)


def test_json_has_the_same_and_the_statistics(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(*RUNS, RUNS, examples=1, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"seed": [1, 2], "adapter.rank": [None, 4]}
    assert found["facts"]["bytes_on_disk"] == [2, None]
    flips = found["flips"]["sst"]
    assert (flips["first"], flips["second"]) == (3, 1)
    assert flips["examples"][0] == {
        "right": "first", "id": "0", "texts": ["a film"], "label": "3", "predictions": ["3", "2"]
    }  # fmt: skip
    difference = measure(project / "results", RUNS).difference(*RUNS, "sst")
    assert [found["scores"]["sst"]["difference"][key] for key in ("value", "p")] == [difference.value, difference.p]
    smallest = detectable(found["scores"]["sst"]["difference"]["error"])
    assert found["scores"]["sst"]["detectable"] == smallest
    told = " ".join(compared(*RUNS).split())
    assert f"would show with a probability of 80%: sst {smallest:.3f} (at 5%, without correction)." in told


def test_runs_with_equal_predictions_have_no_smallest_difference(project: Path) -> None:
    for file in ("metrics.json", "examples/sst-dev.csv"):
        (project / "results/second" / file).write_bytes((project / "results/first" / file).read_bytes())
    seal(project / "results/second")
    assert "for this comparison alone." in compared(*RUNS).replace("\n", " ") and "would show" not in compared(*RUNS)


def test_a_reader_that_has_ended_is_no_error(root: Path, project: Path) -> None:
    """Of what Rich prints; tests/test_cli.py has other commands."""
    (project / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    assert unread(project, "mtbert", "compare", *RUNS, code=root) == (141, b"")


def test_errors_name_the_remedy(project: Path) -> None:
    with pytest.raises(MtbertError, match="no run is called 'frst'; did you mean 'first'"):
        compared("frst", "second")
    with pytest.raises(MtbertError, match="'first' is named twice"):
        compared("first", "first")
    with pytest.raises(MtbertError, match=r"results/mine/metrics\.json: not found; run `dvc repro evaluate@mine`"):
        compare.main("first", "mine", (*RUNS, "mine"))
    (project / "results/gone").mkdir()
    (project / "results/gone/metrics.json").write_text("{", encoding="utf-8")
    remedy = (
        r"run `dvc repro .*evaluate@gone`, after declaring gone under runs in params\.yaml again, or compare runs that"
    )
    with pytest.raises(MtbertError, match=remedy):
        compare.main("first", "gone", RUNS)
    path = project / "results/second/examples/sst-dev.csv"
    path.write_text(
        path.read_text(encoding="utf-8").replace("4,a", "5,a").replace("4,last", "9,last"), encoding="utf-8"
    )
    seal(path.parents[1])
    with pytest.raises(MtbertError, match="its dev examples of sst are not those of results/first"):
        compared(*RUNS)


def test_the_command_takes_the_runs_of_params_yaml(root: Path, project: Path) -> None:
    (project / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    done = CliRunner().invoke(app, ["compare", "first", "dora_r16", "--project", str(project)])
    assert done.exit_code == 1
    assert "run `dvc repro evaluate@dora_r16`" in done.output
    done = CliRunner().invoke(app, ["compare", "first", "second", "--json", "--project", str(project)])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["runs"] == list(RUNS)
