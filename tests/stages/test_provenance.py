"""The commit of the code, and whether that is the code."""

import subprocess
from pathlib import Path

import pytest

from stages.provenance import commit


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
