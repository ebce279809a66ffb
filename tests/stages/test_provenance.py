"""What the records say: the commit, and whether that is the code; lock file, settings, data, weights and threads."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from mtbert.model.store import read_config
from mtbert.params import load_params
from mtbert.seal import unsealed
from mtbert.training.compute import resolve
from stages import convert
from stages.provenance import LOCK, commit, origin


def git(*arguments: str) -> str:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *name, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_clean_dirty_and_not_under_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == "not under git"
    git("init", "-q")
    (tmp_path / "stages").mkdir()
    (tmp_path / "mtbert").mkdir()
    (tmp_path / "stages/train.py").write_text("x = 1", encoding="utf-8")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert commit() == f"commit {head}"
    (tmp_path / "notes.txt").write_text("not code", encoding="utf-8")
    assert commit() == f"commit {head}"
    (tmp_path / "stages/train.py").write_text("x = 2", encoding="utf-8")
    assert commit() == f"commit {head} with uncommitted changes"


def record_of(path: Path) -> dict[str, Any]:
    return unsealed(json.loads(path.read_text(encoding="utf-8")))


def beside(project: Path, folder: str) -> dict[str, Any]:
    return record_of(project / f"{folder}.record.json")


def test_data_and_encoder_have_records_beside_them_that_lead_from_one_to_the_next(project: Path) -> None:
    params = load_params()
    raw, encoder, prepared = (beside(project, name) for name in ("data/raw", "models/pretrained", "data/prepared"))
    assert raw["settings"] == params.data.model_dump(), "the seed of generated data is among them"
    assert prepared["settings"] == params.prepare.model_dump()
    assert prepared["parent"] == {"folder": "data/raw", "sha256": raw["data"]}
    assert prepared["data"] == record_of(project / "models/baseline/record.json")["data"] != raw["data"]
    assert encoder["weights"] == read_config(project / "models/pretrained")["sha256"]
    assert encoder["settings"]["random"]["seed"] == 1
    assert (encoder["threads"], encoder["device"]) == (1, "cpu")
    for record, stage in ((raw, "fetch"), (encoder, "encoder"), (prepared, "prepare")):
        assert record["command"] == f"python -m stages.{stage}"
        assert record["code"] == commit()


def test_a_conversion_has_a_record_that_names_the_encoder(project: Path) -> None:
    convert.main("dora_r4")
    record = beside(project, "models/converted/dora_r4")
    assert record["parent"]["sha256"] == beside(project, "models/pretrained")["weights"]
    assert (
        record["weights"] == read_config(project / "models/converted/dora_r4")["sha256"] != record["parent"]["sha256"]
    )
    assert record["settings"]["adapter"]["rank"] == 4
    assert (record["threads"], record["command"]) == (1, "python -m stages.convert dora_r4")


def test_the_lock_file_is_named_by_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin("fetch", {})["requirements_sha256"] is None
    LOCK.parent.mkdir()
    LOCK.write_bytes(b"torch==1\n")
    assert origin("fetch", {})["requirements_sha256"] == hashlib.sha256(b"torch==1\n").hexdigest()


def test_automatic_threads_are_recorded_as_the_number_they_came_to() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert resolve("cpu", "fp32", "auto").describe()["threads"] == 3
        assert resolve("cpu", "fp32", 2).describe()["threads"] == 2
    finally:
        torch.set_num_threads(before)
