"""The files that `plan` writes for each stage and run, and which of them an edit of params.yaml changes."""

import copy
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import Params, load_params
from mtbert.pipeline.planning import check_paths, settings_of_stages
from mtbert.settings.run import Run
from mtbert.yamlfile import read_yaml
from stages import plan

ROOT = Path(__file__).parents[2]
TREE = read_yaml(ROOT / "params.yaml")
PARAMS = load_params(ROOT / "params.yaml")
SHIPPED, RUNS = settings_of_stages(PARAMS), PARAMS.runs
ADAPTED = {name for name, run in RUNS.items() if run.adapter}
BEST = {"best_performance", "concat_u_v", "concat_sum_diff", *ADAPTED} | {
    f"sampler_{name}" for name in ("sequential", "round_robin", "proportional", "balanced")
}
TRAINING = ("train", "evaluate")


def edited(changes: dict[str, Any]) -> Params:
    """The shipped settings with these keys changed, whose sections exist."""
    tree = copy.deepcopy(TREE)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    with patch("mtbert.params.read_yaml", lambda _: tree):  # a YAML parser takes far longer
        return load_params()


def files(stages: tuple[str, ...], runs: set[str]) -> set[str]:
    return {f"{stage}/{run}" for stage in stages for run in runs}


def test_a_file_for_each_stage_and_run() -> None:
    views = {f"table/table{n}" for n in (1, 2, 3, 4)} | {f"figure/figure{n}" for n in (1, 2, 3, 4)}
    runs = files(("convert", *TRAINING), set(RUNS))
    assert set(SHIPPED) == {"fetch", "encoder", "prepare", "statistics", "report"} | views | runs
    for name, run in RUNS.items():
        for stage in TRAINING:
            assert Run.model_validate(SHIPPED[f"{stage}/{name}"]["run"]) == run
    assert json.loads(json.dumps(SHIPPED)) == SHIPPED


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({"runs.concat_u_v.seed": 1}, files(TRAINING, {"concat_u_v"})),
        ({"runs.best_performance.head_dropout": 0.5}, files(TRAINING, BEST) | files(("convert",), ADAPTED)),
        ({"runs.best_performance.epochs": 9}, files(TRAINING, BEST)),
        ({"runs.baseline.sampler": "balanced"}, files(TRAINING, {"baseline", "key_update_1"})),
        ({"runs.dora_r8.adapter.rank": 9}, files((*TRAINING, "convert"), {"dora_r8"})),
        ({"runs.dora_r4.adapter.norm_gradient": "detached"}, files((*TRAINING, "convert"), ADAPTED)),
        ({"runs.dora_r8.adapter": None}, files((*TRAINING, "convert"), {"dora_r8"})),
        ({"profiles.sample.budget.learning_rate": 1.0}, files(TRAINING, set(RUNS) - ADAPTED)),
        ({"profiles.sample.budget.rest_learning_rate": 1.0}, files(TRAINING, ADAPTED)),
        ({"profiles.sample.budget.adapter_learning_rate": 1.0}, files((*TRAINING, "convert"), ADAPTED)),
        ({"profiles.sample.budget.epochs": 9}, files(TRAINING, set(RUNS))),
        ({"profiles.course.budget.epochs": 9}, set()),
        ({"compute.threads": 1}, files(TRAINING, set(RUNS))),
        ({"prepare.max_tokens": 64}, {"prepare"} | files(TRAINING, set(RUNS))),
        ({"prepare.leakage": "drop"}, {"prepare"}),
        ({"prepare.preprocess": "none"}, {"prepare"} | files(("train",), set(RUNS))),
        ({"data.sample.seed": 1}, {"fetch"}),
        # The model's card names it.
        ({"profiles.sample.data.source": "folder"}, {"fetch"} | files(("train",), set(RUNS))),
        ({"data.path": "elsewhere"}, set()),  # read only where source is folder
        ({"encoder.path": "elsewhere"}, set()),
        ({"encoder.random.layers": 3}, set()),
        ({"encoder.sha256": "0" * 64}, {"encoder"}),
        ({"tables.table2.u_v": "baseline"}, {"table/table2", "report"}),
        ({"figures.figure3": {"r4": "dora_r4"}}, {"figure/figure3", "report"}),
        ({"seeds": {"best_performance": []}}, {"statistics", "report"}),
    ],
)
def test_an_edit_changes_only_the_files_of_stages_that_read_it(changes: dict[str, Any], reached: set[str]) -> None:
    after = settings_of_stages(edited(changes))
    assert set(SHIPPED) == set(after)
    assert {name for name in SHIPPED if SHIPPED[name] != after[name]} == reached


def test_a_run_is_added_in_params_yaml_alone() -> None:
    after = settings_of_stages(edited({"runs.mine": {"from": "dora_r8", "seed": 1}}))
    assert set(after) - set(SHIPPED) == {"convert/mine", "train/mine", "evaluate/mine"}
    assert {name for name in SHIPPED if SHIPPED[name] != after[name]} == {"statistics", "report"}
    assert after["train/mine"]["run"] == SHIPPED["train/dora_r8"]["run"] | {"seed": 1}


def test_an_adapter_that_starts_from_a_run_depends_on_that_run() -> None:
    start = {"runs.dora_r8.adapter.start_from": "mine", "runs.mine": {"from": "best_performance"}}
    before = settings_of_stages(edited(start))
    assert before["train/dora_r8"]["start_run"] == before["train/mine"]["run"]
    assert "start_run" not in before["train/dora_r4"]
    assert before["convert/dora_r8"] == before["convert/baseline"]
    after = settings_of_stages(edited(start | {"runs.mine.epochs": 9}))
    assert before["train/dora_r8"] != after["train/dora_r8"]
    assert before["train/dora_r4"] == after["train/dora_r4"]


@pytest.mark.parametrize(("source", "keys"), [("sample", {"sample"}), ("folder", {"path"}), ("download", set())])
def test_fetch_gets_only_the_settings_of_its_source(source: str, keys: set[str]) -> None:
    change = {"profiles.sample.data.source": source}
    assert set(settings_of_stages(edited(change))["fetch"]) == keys | {"source", "tasks"}
    own = {"texts": ["text"], "label": "label", "kind": "binary"}
    assert set(settings_of_stages(edited(change | {"tasks.own": own}))["fetch"]) == keys | {"source", "tasks", "path"}


def test_a_declared_task_is_planned_for_the_runs_that_have_a_head_for_it() -> None:
    own = {"texts": ["text"], "label": "label", "kind": "binary"}
    head = {"objective": "bce", "features": ["u"]}
    after = settings_of_stages(edited({"tasks.own": own, "runs.dora_r8.heads": {"own": head}}))
    changed = {name for name in SHIPPED if SHIPPED[name] != after[name]}
    assert changed == {"fetch", "prepare", "convert/dora_r8", "train/dora_r8", "evaluate/dora_r8", "report"}


@pytest.mark.parametrize(
    ("encoder", "keys"),
    [
        ({"source": "minilm"}, {"source"}),
        ({"source": "random"}, {"source", "random"}),
        ({"source": "local", "sha256": "0" * 64}, {"source", "path", "sha256"}),
        ({"source": "hub", "name": "a/b", "revision": "0" * 40}, {"source", "name", "revision"}),
    ],
)
def test_encoder_gets_only_the_settings_of_its_source(encoder: dict[str, str], keys: set[str]) -> None:
    assert set(settings_of_stages(edited({"profiles.sample.encoder": encoder}))["encoder"]) == keys


@pytest.mark.parametrize("key", ["data.path", "encoder.path"])
@pytest.mark.parametrize("path", ["../mine", "a/../../mine", "~", "~/mine", "~nobody-of-this-name/mine", "link"])
def test_a_folder_that_dvc_does_not_find_from_every_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("link").symlink_to("../elsewhere")
    with pytest.raises(MtbertError) as caught:
        check_paths(edited({key: path}))
    remedy = re.fullmatch(rf"params\.yaml: {key}: .* {re.escape(path)} .*; write {key}: (/.*)", str(caught.value))
    assert remedy
    Path(remedy[1]).mkdir(parents=True, exist_ok=True)
    check_paths(edited({key: remedy[1]}))  # the remedy, literally


@pytest.mark.parametrize("path", ["data/course", "./mine", "a/../mine", "/usr"])
def test_folders_that_dvc_finds(path: str) -> None:
    check_paths(edited({"data.path": path, "encoder.path": path}))


@pytest.mark.parametrize("key", ["data.path", "encoder.path"])
@pytest.mark.parametrize("path", [".", "..", "/", "data", "data/raw", "models/mine", "build/plan"])
def test_a_folder_that_overlaps_with_outputs(key: str, path: str) -> None:
    with pytest.raises(MtbertError, match=f"^params.yaml: {key}: {path} and .*, which stages write, overlap; "):
        check_paths(edited({key: path}))


@pytest.mark.parametrize("key", ["data.path", "encoder.path"])
def test_a_folder_elsewhere_that_is_not_there(tmp_path: Path, key: str) -> None:
    missing = tmp_path / "none"
    with pytest.raises(MtbertError, match=f"^params.yaml: {key}: there is no folder {missing}; correct the path$"):
        check_paths(edited({key: str(missing)}))


def test_the_stage_writes_settings_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for folder in ("mtbert", "stages"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    plan.main()
    found = {str(path.relative_to("build/plan").with_suffix("")) for path in Path("build/plan").rglob("*.json")}
    wanted = settings_of_stages(load_params())
    assert found == set(wanted)
    train = json.loads(Path("build/plan/train/dora_r4.json").read_text(encoding="utf-8"))
    assert train["settings"] == wanted["train/dora_r4"]
    assert re.fullmatch(r"[0-9a-f]{64}", train["code"]["stages/train.py"])
    assert "stages/report.py" not in train["code"]
    code = {Path(f"build/plan/train/{name}.json").read_text(encoding="utf-8").partition('"code"')[2] for name in RUNS}
    assert len(code) == 1


def test_the_report_has_its_folders_without_any_table_or_figure(fresh: Path) -> None:
    deps = YAML(typ="safe").load(fresh / "dvc.yaml")["stages"]["report"]["deps"]
    folders = [dep.replace("${profile}", "sample") for dep in deps if dep.endswith(("/tables", "/figures"))]
    assert len(folders) == 2
    assert all((fresh / folder).is_dir() for folder in folders)
