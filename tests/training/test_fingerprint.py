"""Everything that determines a run changes its fingerprint; nothing else does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.training.fingerprint import fingerprint

IDENTITY: dict[str, Any] = {"settings": {"seed": 1, "tasks": ["sst", "quora"]}, "start": "abc"}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def made(folder: Path) -> Path:
    write(folder / "data/prepared/train/sst/ids1.npy", "one")
    write(folder / "data/prepared/dev/sst/ids1.npy", "two")
    write(folder / "data/prepared/tokenizer.json", "{}")
    write(folder / "data/prepared/test/sst/ids1.npy", "not read")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return made(tmp_path / "project")


def name(project: Path, identity: dict[str, Any] = IDENTITY) -> str:
    return fingerprint(identity, [project / "data/prepared" / part for part in ("train", "dev", "tokenizer.json")])


def test_it_is_stable(project: Path, tmp_path: Path) -> None:
    first = name(project)
    assert len(first) == 24
    assert set(first) <= set("0123456789abcdef")
    assert name(project) == first
    assert name(project, {"start": "abc", "settings": {"tasks": ["sst", "quora"], "seed": 1}}) == first, "order of keys"
    os.utime(project / "data/prepared/tokenizer.json", (0, 0))
    write(project / "data/prepared/test/sst/ids1.npy", "still not read")
    assert name(project) == first
    assert name(made(tmp_path / "elsewhere")) == first, "as in a temporary workspace"


@pytest.mark.parametrize(
    "identity",
    [
        {**IDENTITY, "start": "abd"},
        {**IDENTITY, "settings": {"seed": 2, "tasks": ["sst", "quora"]}},
        {**IDENTITY, "settings": {"seed": 1, "tasks": ["quora", "sst"]}},
        {**IDENTITY, "more": None},
    ],
)
def test_values_count(project: Path, identity: dict[str, Any]) -> None:
    assert name(project, identity) != name(project)


def edit_folder(project: Path) -> None:
    write(project / "data/prepared/dev/sst/ids1.npy", "twO")


def edit_file(project: Path) -> None:
    write(project / "data/prepared/tokenizer.json", "{ }")


def add_file(project: Path) -> None:
    write(project / "data/prepared/dev/sts/ids1.npy", "new")


def remove_file(project: Path) -> None:
    (project / "data/prepared/dev/sst/ids1.npy").unlink()


def swap_splits(project: Path) -> None:
    write(project / "data/prepared/train/sst/ids1.npy", "two")
    write(project / "data/prepared/dev/sst/ids1.npy", "one")


def rename_task(project: Path) -> None:
    (project / "data/prepared/train/sst").rename(project / "data/prepared/train/sts")


@pytest.mark.parametrize("change", [edit_folder, edit_file, add_file, remove_file, swap_splits, rename_task])
def test_files_count(project: Path, change: Callable[[Path], None]) -> None:
    before = name(project)
    change(project)
    assert name(project) != before


def test_the_order_in_which_files_are_listed_does_not_count(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_file(project)
    before, listed = name(project), Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda *arguments: reversed(list(listed(*arguments))))
    assert name(project) == before


def test_a_missing_path_is_an_error(project: Path) -> None:
    """Otherwise it would count as an empty folder."""
    (project / "data/prepared/tokenizer.json").unlink()
    with pytest.raises(MtbertError, match=r"tokenizer\.json: not found; run `dvc repro prepare`$"):
        name(project)
