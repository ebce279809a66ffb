"""Fixtures: a tiny project with a tiny random encoder, prepared and with one trained run. For tests of stages and pipeline."""

import json
import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import convert, encoder, fetch, plan, prepare, train

ROOT = Path(__file__).parent.parent
TINY = {"seed": 1, "layers": 1, "hidden": 8, "heads": 2, "intermediate": 12, "positions": 256}


def write_params(folder: Path, only: Collection[str] = (), **changes: dict[str, Any]) -> None:
    """params.yaml with tiny data, encoder and budget, these keys of its runs changed; and the plan of it.

    Args:
        only: the runs to keep, without any table or figure; none for all.
    """
    tree = json.loads(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")))
    tree["data"]["sample"]["sizes"] = {task: {"train": 16, "dev": 12, "test": 8} for task in ("sst", "quora", "sts")}
    tree["profiles"]["sample"]["encoder"] = {"source": "random"}
    tree["encoder"]["random"] = TINY
    tree["profiles"]["sample"]["budget"] |= {"epochs": 1, "epoch_end": "depletion", "batch_size": 8}
    tree["compute"] |= {"device": "cpu", "precision": "fp32", "threads": 1}
    for run, keys in changes.items():
        for key, value in keys.items():
            before = tree["runs"][run].get(key)
            tree["runs"][run][key] = {**before, **value} if isinstance(value, dict) and before else value
    if only:
        tree |= {"runs": {run: tree["runs"][run] for run in only}, "tables": {}, "figures": {}}
    (folder / "params.yaml").write_text(json.dumps(tree), encoding="utf-8")
    for name in ("mtbert", "stages", "dvc.yaml"):  # the code that the plan lists, and the graph that the report draws
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan.main()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with `baseline` trained; not to be written to."""
    folder = tmp_path_factory.mktemp("project")
    write_params(folder)
    (folder / "data/course").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (fetch, encoder, prepare):
            stage.main()
        convert.main("baseline")
        train.main("baseline")
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, and the current folder of the test."""
    shutil.copytree(trained, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def change(project: Path) -> Callable[..., None]:
    """change(RUN={key: value}): the tiny params.yaml with these keys of its runs changed, and its plan."""
    return partial(write_params, project)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with `baseline` alone, of which nothing is made yet; the current folder of the test."""
    write_params(tmp_path, only=["baseline"])
    monkeypatch.chdir(tmp_path)
    return tmp_path
