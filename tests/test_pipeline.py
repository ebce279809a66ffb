"""The real graph, tiny, through the real dvc: every stage runs once, a second repro runs nothing, edits touch what they must.

Six runs are left, one of each kind and enough to inherit from one another; the slow test has them all.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.project import ROOT, best_run, call, commit, edit, keep_runs, must, tiny_project, yaml

RUNS = ("baseline", "key_update_1", "key_update_3", "best_performance", "sampler_balanced", "dora_r4")
VIEWS = {f"table@table{n}" for n in range(1, 5)} | {f"figure@figure{n}" for n in range(1, 5)} | {"statistics", "report"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with tiny data, a tiny random encoder and few runs, after one `dvc repro`."""
    folder = tiny_project(tmp_path_factory.mktemp("project"), compute__precision="auto")
    keep_runs(folder, *RUNS)
    commit(folder, "tiny")
    (folder / "first.log").write_text(must(folder, "dvc", "repro"), encoding="utf-8")
    commit(folder, "results")
    return folder


@pytest.fixture(autouse=True)
def _restored(project: Path) -> Iterator[None]:
    """Each test finds the project as it was after the first repro."""
    yield
    must(project, "git", "checkout", "-q", "HEAD", "--", ".")  # from HEAD: autostage has put dvc.lock into the index
    must(project, "dvc", "checkout", "-q")


def stages_run(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def stale(project: Path) -> set[str]:
    """The stages that an edit of params.yaml makes stale: what `plan` rewrites shows which."""
    must(project, "dvc", "repro", "plan")
    return stages_run(must(project, "dvc", "repro", "--dry"))


def both(runs: set[str]) -> set[str]:
    return {f"{stage}@{run}" for stage in ("train", "evaluate") for run in runs}


def declared(project: Path) -> set[str]:
    return set(yaml.load(project / "params.yaml")["runs"])


def test_every_stage_ran_and_left_its_outputs(project: Path) -> None:
    names = set(must(project, "dvc", "stage", "list", "--name-only").split())
    assert stages_run((project / "first.log").read_text(encoding="utf-8")) == names
    assert set(json.loads((project / "reports/sample/metrics.json").read_text(encoding="utf-8"))) == declared(project)
    assert set(json.loads((project / "reports/sample/statistics.json").read_bytes())["runs"]) == declared(project)
    for table in ("table1", "table2", "table3", "table4"):
        for ending in ("csv", "md", "tex", "json"):
            assert (project / f"reports/sample/tables/{table}.{ending}").stat().st_size > 100
    for figure in ("figure1", "figure2", "figure3", "figure4"):
        assert (project / f"reports/sample/figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (project / f"reports/sample/figures/{figure}.svg").read_text(encoding="utf-8")
    assert "<html" in (project / "reports/sample/index.html").read_text(encoding="utf-8")
    assert not list((project / ".mtbert").glob("*/*.safetensors")), "checkpoints are removed when the outs are written"
    metrics = json.loads(must(project, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(metrics) == {f"metrics/{run}.json" for run in declared(project)}, "a row for each run"
    assert set().union(*(about["data"] for about in metrics.values())) == {"overall", "sentiment", "paraphrase", "sts"}


def test_second_repro_runs_nothing(project: Path) -> None:
    with (project / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n<!-- a comment -->\n")
    assert "up to date" in must(project, "dvc", "repro")


def test_an_edit_of_code_reruns_the_stages_that_run_it_only(project: Path) -> None:
    with (project / "mtbert/evaluation/leaderboard.py").open("a", encoding="utf-8") as file:
        file.write("\n# Only evaluate runs this.\n")
    assert stages_run(must(project, "dvc", "repro", "evaluate@baseline")) == {"plan", "evaluate@baseline"}
    others = {f"evaluate@{run}" for run in declared(project) - {"baseline"}}
    assert stages_run(must(project, "dvc", "repro", "--dry")) == others | VIEWS


def test_another_profile_has_a_report_of_its_own(project: Path) -> None:
    tree = yaml.load(project / "params.yaml")
    tree["profiles"]["again"] = deepcopy(tree["profiles"]["sample"])
    tree["profile"] = "again"
    yaml.dump(tree, project / "params.yaml")
    must(project, "dvc", "repro", "plan")
    # Not what reads it: with --dry DVC ends with an error where a dependency, reports/again/statistics.json, is not there yet.
    assert stages_run(must(project, "dvc", "repro", "--dry", "statistics")) == {"statistics"}
    views = ["table@table4", "figure@figure4"]
    assert stages_run(must(project, "dvc", "repro", *views)) == {"statistics", *views}
    assert (project / "reports/again/tables/table4.md").is_file()
    assert (project / "reports/again/figures/figure4.svg").is_file()
    assert "report" in must(project, "dvc", "status", "report"), "the page is stale too"
    assert (project / "reports/sample/index.html").is_file(), "that of the other profile stays"
    shutil.rmtree(project / "reports/again")


def test_an_edit_of_a_run_reaches_that_run_and_its_heirs_only(project: Path) -> None:
    edit(project, runs__sampler_balanced__sampler=0.25, runs__dora_r4__adapter__rank=2)
    assert stale(project) == {"convert@dora_r4"} | both({"sampler_balanced", "dora_r4"})
    edit(project, runs__key_update_3__pooling="max")
    heirs = declared(project) - {"baseline", "key_update_1"}
    assert {name for name in stale(project) if name.startswith("train@")} == {f"train@{run}" for run in heirs}


def test_runs_are_edited_added_and_removed_in_params_yaml_alone(project: Path) -> None:
    tree = yaml.load(project / "params.yaml")
    tree["runs"]["dora_r4"]["seed"] = 2
    tree["runs"]["mine"] = {"from": "dora_r4", "adapter": None}
    tree["tables"]["table1"]["mine"] = "mine"
    del tree["runs"]["sampler_balanced"], tree["tables"]["table3"]
    yaml.dump(tree, project / "params.yaml")
    again = {"plan", "convert@mine", "convert@dora_r4", *both({"mine", "dora_r4"}), "statistics", "table@table1"}
    assert stages_run(must(project, "dvc", "repro", "table@table1")) == again
    others = VIEWS - {"table@table3", "statistics", "table@table1"}
    assert stages_run(must(project, "dvc", "repro", "--dry")) == others
    # Of these, only what is looked at below is made.
    must(project, "dvc", "repro", "--single-item", "report")
    assert "mine" in (project / "reports/sample/tables/table1.md").read_text(encoding="utf-8")
    page = (project / "reports/sample/index.html").read_text(encoding="utf-8")
    assert "dvc repro table@table2" in page
    assert "dvc repro table@table3" not in page


def test_a_stage_by_hand_leaves_dvc_with_nothing_to_do(project: Path) -> None:
    for command in (["train", "dora_r4"], ["evaluate", "dora_r4"]):  # the report names the commit it was made at
        must(project, sys.executable, "-m", "mtbert", *command)
    assert "up to date" in must(project, "dvc", "status")


def test_an_experiment_shows_its_own_scores(project: Path) -> None:
    settings = ["-S", "+runs.dora_r4.heads.sts.clamp=false", "-S", "+runs.dora_r4.seed=3"]
    output = must(project, "dvc", "exp", "run", *settings, "evaluate@dora_r4")
    assert stages_run(output) == {"plan", "convert@dora_r4", *both({"dora_r4"})}
    changed = [line for line in must(project, "git", "diff", "-U0", "params.yaml").splitlines() if line[:1] in "+-"]
    assert [line.strip("+ ") for line in changed[2:]] == ["heads:", "sts:", "clamp: false", "seed: 3"]
    assert "runs.dora_r4.heads.sts.clamp" in must(project, "dvc", "params", "diff")
    scores = json.loads((project / "metrics/dora_r4.json").read_text(encoding="utf-8"))
    shown = must(project, "dvc", "metrics", "diff", "--json")
    assert json.loads(shown)["metrics/dora_r4.json"]["overall"]["new"] == pytest.approx(scores["overall"])
    table = must(project, "dvc", "exp", "show", "--only-changed", "--csv").splitlines()
    assert str(scores["overall"]) in "".join(table)
    assert "runs.dora_r4.heads.sts.clamp" in table[0]
    assert "runs.baseline.seed" not in table[0]


@pytest.mark.slow
def test_the_guides_own_task_goes_through_the_graph(tmp_path: Path) -> None:
    guide = (ROOT / "docs/own-task.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"^```csv\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    task, run, alone = map(yaml.load, re.findall(r"^```yaml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL))
    project = tiny_project(tmp_path / "project")
    best_run(project, **run["runs"], **alone["runs"])
    edit(project, tasks=task["tasks"])
    for split in ("train", "dev"):
        (project / f"data/course/topic-{split}.csv").write_text(rows, encoding="utf-8")
    commit(project, "a task of one's own")
    must(project, "dvc", "repro")
    assert "up to date" in must(project, "dvc", "repro")
    scores = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (project / "metrics").glob("*.json")}
    assert {name for name, found in scores.items() if "topic" in found} == {"mine", "own"}, (
        "the other has no head for it"
    )
    assert scores["own"].keys() == {"overall", "topic"} and scores["own"]["overall"] is None
    page = (project / "reports/sample/index.html").read_text(encoding="utf-8")
    assert 'id="declared"' in page
    assert "data/raw/topic-train.csv" in page, "its checksum is among the sources"
    edit(project, tasks__topic__classes=["world", "sport"])
    status, output = call(project, "dvc", "repro", "evaluate@mine")
    assert status != 0
    assert "data/course/topic-dev.csv:3:47: topic 'sports' is no class of topic (valid: world, sport)" in output


def test_a_misspelt_key_is_one_clear_error(project: Path) -> None:
    edit(project, runs__baseline__poling="mean")
    status, output = call(project, "dvc", "repro")
    assert status != 0
    assert "error: params.yaml: unknown key runs.baseline.poling; did you mean 'pooling'?" in output
    assert "Traceback" not in output


def test_a_source_without_its_files_is_an_error(project: Path) -> None:
    edit(project, profiles__sample__data__source="folder")
    (project / "data/course/ids-sst-train.csv").write_text("x", encoding="utf-8")
    status, output = call(project, "dvc", "repro", "fetch")
    assert status != 0
    assert "ids-sst-dev.csv" in output, "the missing files are named"
    assert "Traceback" not in output
    (project / "data/course/ids-sst-train.csv").unlink()


@pytest.mark.slow
def test_the_whole_graph(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    commit(project, "tiny")
    names = set(must(project, "dvc", "stage", "list", "--name-only").split())
    assert 60 < len(names) < 80
    assert stages_run(must(project, "dvc", "repro")) == names
