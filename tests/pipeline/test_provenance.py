"""Records, their hashes, and the log: commit, uncommitted changes, lock file, threads."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import torch

from mtbert.pipeline import provenance
from mtbert.pipeline.provenance import REQUIREMENTS, commit, plan_hash, read_log, write_log
from mtbert.training.compute import resolve


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


def test_changed_code_is_seen_from_a_study_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for folder in ("stages", "mtbert/pipeline", "studies/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mtbert/model.py").write_text("x = 1", encoding="utf-8")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "mtbert/pipeline/provenance.py"))
    monkeypatch.chdir("studies/mine")
    (tmp_path / "studies/mine/params.yaml").write_text("runs: {}", encoding="utf-8")
    assert commit() == f"commit {git('rev-parse', 'HEAD')}", "a study's settings are no code"
    (tmp_path / "mtbert/model.py").write_text("x = 2", encoding="utf-8")
    assert commit().endswith("with uncommitted changes")


def test_the_plan_s_hash_ignores_the_order_of_keys() -> None:
    plan = {"settings": {"a": 1, "b": 2}, "code": {"x.py": "0"}}
    assert plan_hash(plan) == plan_hash({"code": {"x.py": "0"}, "settings": {"b": 2, "a": 1}})
    assert plan_hash(plan) != plan_hash({**plan, "code": {"x.py": "1"}})
    assert plan_hash(plan) != plan_hash({**plan, "settings": {"a": 1, "b": 3}})


def test_a_log_is_valid_only_for_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path, "train", "mine", "ab", seconds=2.5)
    log = read_log(tmp_path, "train", "mine", "ab")
    assert (log["seconds"], log["requirements_sha256"]) == (2.5, None)
    assert log.keys() >= {"commit", "machine", "finished"}
    assert read_log(tmp_path, "train", "mine", "cd") == {}
    assert read_log(tmp_path, "train", "other", "ab") == {}
    REQUIREMENTS.parent.mkdir()
    REQUIREMENTS.write_bytes(b"torch==1\n")
    write_log(tmp_path, "train", "mine", "ab")
    assert read_log(tmp_path, "train", "mine", "ab")["requirements_sha256"] == hashlib.sha256(b"torch==1\n").hexdigest()
    (tmp_path / "log/train-mine.json").write_text("{", encoding="utf-8")
    assert read_log(tmp_path, "train", "mine", "ab") == {}


def test_automatic_threads_are_recorded_as_a_number() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert resolve("cpu", "fp32", "auto").describe()["threads"] == 3
        assert resolve("cpu", "fp32", 2).describe()["threads"] == 2
    finally:
        torch.set_num_threads(before)
