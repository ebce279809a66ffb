"""The page shows the runs that dvc.yaml hands to it, and says which of params.yaml it leaves out."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import load_params
from stages import report

ROOT = Path(__file__).parents[2]


def test_the_shipped_graph_hands_over_every_shipped_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    runs = list(load_params().runs)
    assert report.handed_runs(runs) == runs
    assert capsys.readouterr().out == ""


def test_a_run_without_its_line_is_left_out_and_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "dvc.yaml", project)
    assert report.handed_runs(["mine", "baseline"]) == ["baseline"]
    assert (
        capsys.readouterr().out == "mine is not on the page: add `- results/mine` to the deps of report in dvc.yaml\n"
    )


def test_only_results_that_are_handed_over_are_read(project: Path) -> None:
    """No result is there, so the error names the first that is asked for, in the order of params.yaml."""
    graph = YAML(typ="safe").load(ROOT / "dvc.yaml")
    graph["stages"]["report"]["deps"] = ["results/dora_r4", "results/baseline"]
    YAML().dump(graph, project / "dvc.yaml")
    with pytest.raises(MtbertError, match=r"results/baseline/metrics\.json: .* run `dvc repro evaluate@baseline`"):
        report.main()
    graph["stages"]["report"]["deps"] = ["results/dora_r4"]
    YAML().dump(graph, project / "dvc.yaml")
    with pytest.raises(MtbertError, match="evaluate@dora_r4"):
        report.main()
