"""Studies: one graph for all, each valid under every profile, each stage with its plans among its deps; and a tiny one run by DVC."""

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import load_here, load_params, load_study
from mtbert.pipeline import cost
from mtbert.report.text import read_table
from tests.project import ROOT, commit, must, tiny_project, yaml

STUDIES = ROOT / "studies"
NAMES = sorted(path.parent.name for path in STUDIES.glob("*/params.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "params.yaml"

    return write


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_valid_and_dvc_does_not_know_it_yet(name: str) -> None:
    """With a dvc.yaml in git, `dvc status` would list a study that was never run, and `dvc pull` would fail."""
    folder = STUDIES / name
    known = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"studies/{name}/dvc.yaml" not in known.split()
    study, project = load_study(folder / "params.yaml", ROOT / "params.yaml"), load_params(ROOT / "params.yaml")
    assert list(study.runs) == list(yaml.load(folder / "params.yaml")["runs"])
    shown = {run for views in (study.tables, study.figures) for rows in views.values() for run in rows.values()}
    assert shown == set(study.runs), "every run is shown somewhere"
    assert (study.data, study.prepare, study.encoder) == (project.data, project.prepare, project.encoder)
    told = [json.dumps(run.model_dump(), sort_keys=True) for run in study.runs.values()]
    assert len(set(told)) == len(told), "no run is trained twice"


def test_every_command_has_its_plan_among_its_deps() -> None:
    for stage, entry in YAML(typ="safe").load(STUDIES / "study.yaml")["stages"].items():
        block = entry.get("do", entry)
        commands = block["cmd"] if isinstance(block["cmd"], list) else [block["cmd"]]
        names = re.findall(r"PYTHONPATH=\.\./\.\. python -m stages\.(\w+)", "\n".join(commands))
        plans = {dep for dep in block["deps"] if dep.startswith("build/plan")}
        if stage == "plan":
            assert names == ["study"] and {"../../mtbert", "../../stages"} <= set(block["deps"])
        elif names:
            key = "/${key}" if "foreach" in entry else ""
            assert plans == {f"build/plan/{name}{key}.json" for name in names}, stage


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {mine: {from: best_performance, sampler: sqare_root}}", "runs.mine.sampler: 'sqare_root' is not valid"),
        ("runs: {mine: {from: best}}", "runs.mine.from: no run is called 'best'"),
        ("runs: {baseline: {from: best_performance}}", "runs.baseline: .* has a run of that name; rename this one"),
        ("runs: {mine: {from: baseline}}\nprofile: course", "unknown key profile.*; other settings are those of"),
        ("runs: []", "runs: expected a mapping of names to settings; add at least one"),
        ("[]", "expected sections .runs, tables, figures, seeds., found list"),
        ("runs: {mine: {from: baseline}}\ntables: {scores: {a: baseline}}", "no run is called 'baseline'"),
    ],
)
def test_a_fault_is_named_with_its_file(write: Any, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(MtbertError, match=f"^{re.escape(str(path))}: .*{message}"):
        load_study(path, ROOT / "params.yaml")


def test_settings_in_a_study_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands about results work there; those of the project's graph say where to run them."""
    folder = tmp_path / "studies/mine"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (folder / "params.yaml").write_text("runs: {mine: {from: baseline}}")
    monkeypatch.chdir(tmp_path)
    assert load_here() == load_params()
    monkeypatch.chdir(folder)
    assert list(load_here().runs) == ["mine"]
    with pytest.raises(MtbertError, match=f"project's root, {re.escape(str(tmp_path))}, with --study mine if"):
        load_params()


def test_the_plan_of_a_study_names_the_study_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_project(tmp_path) / "studies/mine"
    folder.mkdir(parents=True)
    adapter = "{method: oft, block_size: 3, train_rest: false, start_from: pretrained}"
    (folder / "params.yaml").write_text(f"runs: {{mine: {{from: baseline, adapter: {adapter}}}}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MtbertError, match=r"^studies/mine/params\.yaml: runs\.mine\.adapter\.block_size is 3"):
        cost.main(study="mine")


def test_the_study_of_the_docs_is_valid(write: Any) -> None:
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^   ```yaml\n(.*?)^   ```", text, re.MULTILINE | re.DOTALL)
    study = load_study(write(textwrap.dedent(block)), ROOT / "params.yaml")
    assert [run.adapter.rank for run in study.runs.values() if run.adapter] == [2, 64]
    told = re.search(r"(\d+) runs in all", text)
    assert told and int(told[1]) == len(load_study(STUDIES / "samplers/params.yaml", ROOT / "params.yaml").runs)


def keep(folder: Path, runs: set[str]) -> None:
    """Leave these runs of a study, and the views of them."""
    tree = yaml.load(folder / "params.yaml")
    for name in set(tree["runs"]) - runs:
        del tree["runs"][name]
    for kind in ("tables", "figures"):
        for rows in tree[kind].values():
            for row in [row for row, run in rows.items() if run not in runs]:
                del rows[row]
    yaml.dump(tree, folder / "params.yaml")


@pytest.mark.slow
def test_a_study_runs_beside_the_project(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    shutil.copytree(STUDIES, project / "studies", symlinks=True)
    study = project / "studies/samplers"
    kept = {"proportional_paper", "proportional_steps", "proportional_tokens"}
    keep(study, {"sequential", *kept})
    (study / "dvc.yaml").symlink_to("../study.yaml")
    commit(project, "tiny")
    output = must(project, "dvc", "repro", "studies/samplers/dvc.yaml")
    assert "train@baseline" not in output, "of the project's graph only data and encoder"
    trained = {run: json.loads((study / f"results/{run}/metrics.json").read_bytes())["training"] for run in kept}
    one = json.loads((study / "results/sequential/metrics.json").read_bytes())["training"]
    for run, training in trained.items():
        if run.endswith("_steps"):
            assert training["steps"] == one["steps"]
        if run.endswith("_tokens"):
            assert 0 <= training["tokens"] - one["tokens"] < 0.2 * one["tokens"]
    for name in ("scores", "pairs", "training"):
        assert all((study / f"reports/sample/tables/{name}.{ending}").is_file() for ending in ("csv", "md", "tex"))
    logs = json.loads((study / "reports/sample/provenance.json").read_bytes())["Runs"]
    timed = [row[3] for row in read_table(study / "reports/sample/tables/training.json").rows]
    assert timed == [f"{log['seconds']:,.0f}" for log in logs.values()], "by the logs in the study's folder"
    for name in ("sampler_exponent", "sampler_curves", "sampler_amount"):
        assert (study / f"reports/sample/figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Data and pipelines are up to date" in must(project, "dvc", "repro", "studies/samplers/dvc.yaml")
    assert "studies" not in must(project, "dvc", "stage", "list", "--name-only"), "the default graph has no stage of it"
    changed = must(project, "git", "status", "--porcelain", "--untracked-files=all", "--", "studies").split()[1::2]
    assert all("/reports/" in path or path.endswith("dvc.lock") for path in changed), changed
