"""The real graph, tiny, through the real dvc: every stage runs once, a second repro runs nothing, edits touch what they must."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from reliability.project import call, commit, edit, must, tiny_project, yaml


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with tiny data and a tiny random encoder, after one `dvc repro`."""
    folder = tiny_project(tmp_path_factory.mktemp("project"), compute__precision="auto")
    commit(folder, "tiny")
    (folder / "first.log").write_text(must(folder, "dvc", "repro"), encoding="utf-8")
    commit(folder, "results")
    return folder


def stages_run(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def stale(project: Path) -> set[str]:
    """The stages that `dvc repro` would run for certain; what depends on their outputs runs if those change."""
    return stages_run(must(project, "dvc", "repro", "--dry"))


def restored(project: Path) -> None:
    must(project, "git", "checkout", "-q", "HEAD", "--", ".")  # from HEAD: autostage has put dvc.lock into the index
    must(project, "dvc", "checkout", "-q")


def test_every_stage_ran_and_left_its_outputs(project: Path) -> None:
    names = set(must(project, "dvc", "stage", "list", "--name-only").split())
    assert stages_run((project / "first.log").read_text(encoding="utf-8")) == names
    assert len(names) < 80
    metrics = json.loads((project / "reports/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == set(yaml.load(project / "params.yaml")["runs"])
    for table in ("table1", "table2", "table3", "table4"):
        for ending in ("csv", "md", "tex"):
            assert (project / f"reports/tables/{table}.{ending}").stat().st_size > 100
    for figure in ("figure1", "figure2", "figure3", "figure4"):
        assert (project / f"reports/figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (project / f"reports/figures/{figure}.svg").read_text(encoding="utf-8")
    assert "<html" in (project / "reports/index.html").read_text(encoding="utf-8")
    assert not list((project / ".mtbert").glob("*/*.safetensors")), "checkpoints are removed when the outs are written"


def test_second_repro_runs_nothing(project: Path) -> None:
    assert "up to date" in must(project, "dvc", "repro")


def test_a_comment_in_the_readme_makes_nothing_stale(project: Path) -> None:
    with (project / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n<!-- a comment -->\n")
    assert stale(project) == set()
    restored(project)


def test_an_edit_of_code_reruns_the_stages_that_run_it_only(project: Path) -> None:
    runs = set(yaml.load(project / "params.yaml")["runs"])
    with (project / "mtbert/evaluation/leaderboard.py").open("a", encoding="utf-8") as file:
        file.write("\n# Only evaluate runs this.\n")
    assert stale(project) == {"code"}
    assert stages_run(must(project, "dvc", "repro", "evaluate@baseline")) == {"code", "evaluate@baseline"}
    # Its results name the commit and that there are uncommitted changes, so the page is stale; the scores are the same.
    assert stale(project) == {f"evaluate@{run}" for run in runs - {"baseline"}} | {"report"}
    restored(project)
    assert stale(project) == set()
    with (project / "mtbert/cli.py").open("a", encoding="utf-8") as file:
        file.write("\n# No stage runs this.\n")
    assert stages_run(must(project, "dvc", "repro")) == {"code"}
    restored(project)


def test_another_folder_for_the_report_makes_what_lies_in_it_stale(project: Path) -> None:
    edit(project, report__folder="reports/elsewhere")
    pages = {f"{kind}{number}" for kind in ("table", "figure") for number in range(1, 5)}
    assert stages_run(must(project, "dvc", "repro")) == {*pages, "report"}
    assert (project / "reports/elsewhere/index.html").is_file()
    shutil.rmtree(project / "reports/elsewhere")
    restored(project)


def test_editing_one_run_reruns_that_run_and_its_descendants_only(project: Path) -> None:
    edit(project, runs__sampler_balanced__sampler=0.25)
    assert stale(project) == {"train@sampler_balanced", "evaluate@sampler_balanced"}
    ran = stages_run(must(project, "dvc", "repro"))
    assert ran == {"train@sampler_balanced", "evaluate@sampler_balanced", "table3", "report"}
    restored(project)
    edit(project, runs__dora_r8__adapter__rank=2)
    assert stale(project) == {"convert@dora_r8", "train@dora_r8", "evaluate@dora_r8"}
    restored(project)


def test_editing_an_anchor_makes_its_heirs_stale(project: Path) -> None:
    edit(project, runs__key_update_3__pooling="max")
    trained = {name.removeprefix("train@") for name in stale(project) if name.startswith("train@")}
    assert trained == set(yaml.load(project / "params.yaml")["runs"]) - {"baseline", "key_update_1", "key_update_2"}
    restored(project)


def test_params_metrics_and_plots_diff_and_an_experiment(project: Path) -> None:
    output = must(project, "dvc", "exp", "run", "-S", "runs.dora_r4.learning_rate=0.01", "evaluate@dora_r4")
    assert stages_run(output) == {"convert@dora_r4", "train@dora_r4", "evaluate@dora_r4"}
    assert "runs.dora_r4.learning_rate" in must(project, "dvc", "params", "diff")
    assert stages_run(must(project, "dvc", "repro")) == {"figure3", "report"}
    assert "dora_r4.sst" in must(project, "dvc", "metrics", "diff", "--all")
    must(project, "dvc", "plots", "diff")
    assert "figure2.csv" in (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    shutil.rmtree(project / "dvc_plots")
    restored(project)


def test_a_misspelt_key_is_one_clear_error(project: Path) -> None:
    edit(project, runs__baseline__poling="mean")
    status, output = call(project, sys.executable, "-m", "stages.train", "baseline")
    assert status == 1
    assert "error: params.yaml: unknown key runs.baseline.poling; did you mean 'pooling'?" in output
    assert "Traceback" not in output
    restored(project)


def test_changed_source_files_are_noticed(project: Path, tmp_path: Path) -> None:
    source = tmp_path / "course"
    source.mkdir()
    (source / "ids-sst-train.csv").write_text("x", encoding="utf-8")
    edit(project, data__source="cs224n", data__path=str(source))
    status, output = call(project, "dvc", "repro", "fetch")
    assert status != 0
    assert "ids-sst-dev.csv" in output, "the missing files are named"
    assert "Traceback" not in output
    restored(project)
