"""Whatever determines a run changes its name; nothing else does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.training.fingerprint import fingerprint

IDENTITY: dict[str, Any] = {"settings": {"seed": 1, "tasks": ["sst", "quora"]}, "start": "abc"}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "data/sst/train/ids1.npy", "one")
    write(tmp_path / "data/sst/dev/ids1.npy", "two")
    write(tmp_path / "data/tokenizer.json", "{}")
    write(tmp_path / "code/model/bert.py", "x = 1")
    write(tmp_path / "code/training/loop.py", "y = 2")
    write(tmp_path / "stages/train.py", "z = 3")
    write(tmp_path / "stages/report.py", "not named")
    return tmp_path


def name(project: Path, identity: dict[str, Any] = IDENTITY) -> str:
    code = [project / "code/model", project / "code/training", project / "stages/train.py"]
    return fingerprint(identity, project / "data", code)


def test_it_is_stable(project: Path) -> None:
    first = name(project)
    assert len(first) == 24
    assert set(first) <= set("0123456789abcdef")
    assert name(project) == first
    assert name(project, {"start": "abc", "settings": {"tasks": ["sst", "quora"], "seed": 1}}) == first, "order of keys"
    os.utime(project / "data/tokenizer.json", (0, 0))
    write(project / "code/model/__pycache__/bert.pyc", "compiled")
    write(project / "stages/report.py", "still not named")
    assert name(project) == first


@pytest.mark.parametrize(
    "identity",
    [
        {**IDENTITY, "start": "abd"},
        {**IDENTITY, "settings": {"seed": 2, "tasks": ["sst", "quora"]}},
        {**IDENTITY, "settings": {"seed": 1, "tasks": ["quora", "sst"]}},
        {**IDENTITY, "more": None},
    ],
)
def test_settings_count(project: Path, identity: dict[str, Any]) -> None:
    assert name(project, identity) != name(project)


def edit_data(project: Path) -> None:
    write(project / "data/sst/dev/ids1.npy", "twO")


def add_data(project: Path) -> None:
    write(project / "data/sts/dev/ids1.npy", "new")


def swap_splits(project: Path) -> None:
    write(project / "data/sst/train/ids1.npy", "two")
    write(project / "data/sst/dev/ids1.npy", "one")


def rename_task(project: Path) -> None:
    (project / "data/sst").rename(project / "data/sts")


def edit_code(project: Path) -> None:
    write(project / "code/training/loop.py", "y = 3")


def edit_named_file(project: Path) -> None:
    write(project / "stages/train.py", "z = 4")


def add_code(project: Path) -> None:
    write(project / "code/model/deep/new.py", "")


def remove_code(project: Path) -> None:
    (project / "code/model/bert.py").unlink()


@pytest.mark.parametrize(
    "change", [edit_data, add_data, swap_splits, rename_task, edit_code, edit_named_file, add_code, remove_code]
)
def test_data_and_code_count(project: Path, change: Callable[[Path], None]) -> None:
    before = name(project)
    change(project)
    assert name(project) != before
