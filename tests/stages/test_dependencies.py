"""The stages of dvc.yaml declare all that they read: an edit of anything else does not run them again."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mtbert.seal import SEAL
from stages import plan
from tests.stage_fixtures import ROOT, write_params

RUN = "baseline"
DORA = {"method": "dora", "rank": 2, "alpha": 2, "dropout": 0.0, "train_rest": False, "start_from": "pretrained"}
CODE = ("mtbert", "stages", "dvc.yaml")  # which a stage's plan stands for; DVC allows no dependency on dvc.yaml


def paths(stage: dict[str, Any], *kinds: str) -> list[str]:
    entries = [entry for kind in kinds for entry in stage.get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def copied(start: Path, goal: Path, path: str) -> None:
    (goal / path).parent.mkdir(parents=True, exist_ok=True)
    if (start / path).is_dir():
        shutil.copytree(start / path, goal / path, dirs_exist_ok=True)
    else:
        shutil.copy(start / path, goal / path)


def test_each_stage_makes_its_outputs_from_its_dependencies_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    write_params(project, only=[RUN], **{RUN: {"adapter": {**DORA, "norm_gradient": "exact"}}})
    params = json.loads((project / "params.yaml").read_text(encoding="utf-8"))
    params |= {"tables": {"table2": {"row": RUN}}, "figures": {"figure1": {"row": RUN}}}
    (project / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    monkeypatch.chdir(project)
    plan.main()
    for name in ("data/course", "data/encoder"):
        (project / name).mkdir(parents=True)
    keys = {"${runs}": RUN, "${tables}": "table2", "${figures}": "figure1"}
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for name, value in (("data.path", "data/course"), ("encoder.path", "data/encoder"), ("profile", "sample")):
        text = text.replace(f"${{{name}}}", value)
    for name, stage in YAML(typ="safe").load(text)["stages"].items():
        if name == "plan":
            continue
        key = keys.get(stage.get("foreach"))
        block = json.loads(json.dumps(stage.get("do", stage)).replace("${key}", key or ""))
        alone = tmp_path / name
        alone.mkdir()
        for path in CODE:
            (alone / path).symlink_to(ROOT / path)
        for path in paths(block, "deps"):
            copied(project, alone, path)
            if (seal := Path(path).with_name(SEAL)) and (project / seal).exists():  # read only to verify the dependency
                copied(project, alone, str(seal))
        monkeypatch.chdir(alone)
        importlib.import_module(f"stages.{name}").main(*[key] if key else [])
        for path in paths(block, "outs", "metrics", "plots"):
            copied(alone, project, path)
