"""The checks of the checkout, and remedies that work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert.doctor import project as checkout
from mtbert.doctor.check import Check


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty git and DVC project, isolated from the user's git and DVC settings."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")  # else a process that outlives the command makes a missing site cache
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / getattr(request, "param", "a b")
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("", encoding="utf-8")
    run(folder, "git init -q")
    return folder


def run(project: Path, command: str) -> None:
    subprocess.run(["bash", "-ec", command], cwd=project, check=True)


def pasted(check: Check, project: Path) -> None:
    run(project, check.remedy.split("`")[1])


@pytest.mark.parametrize(
    ("project", "setting"),
    [("a b", ""), ("a b é", ""), ("a b", "relative"), ("a b é", "writable"), ("a b", "missing")],
    indirect=["project"],
)
def test_the_remedy_gives_dvc_a_state_of_its_own(project: Path, setting: str) -> None:
    own = project / checkout.SITE_CACHE if project.name.isascii() else Path.home() / ".cache/mtbert/dvc"
    if setting:
        value = {"relative": "state", "writable": own, "missing": project / "none"}[setting]
        (project / ".dvc/config").write_text(f"[core]\n    site_cache_dir = {value}\n", encoding="utf-8")
    if setting == "writable":
        own.mkdir(parents=True)
        own.chmod(0o777)
    check = checkout.site_cache(project)
    assert check.level == ("problem" if setting else "note")
    pasted(check, project)
    assert checkout.site_cache(project) == Check("ok", f"DVC keeps its state in {own}")
    assert own.stat().st_mode & 0o777 == 0o700


def test_git_without_a_commit_or_an_identity(project: Path) -> None:
    (project / "file").write_text("x", encoding="utf-8")
    check = checkout.identity(project)
    assert check.what == "git does not know your user.name and user.email"
    pasted(check, project)
    assert checkout.identity(project).level == "ok"
    check = checkout.git(project)
    assert check.what == "the git repository has no commit"
    pasted(check, project)
    assert checkout.git(project).level == "ok"
    shutil.rmtree(project / ".git")
    assert checkout.git(project).what == "no git repository"


def test_the_cache(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.cache(project).what.endswith("is empty")
    folder = project / ".dvc/cache"
    folder.mkdir()
    (folder / "file").write_bytes(b"12345")
    assert checkout.cache(project) == Check("ok", f"DVC's cache, {folder}, has 5 bytes")
    (folder / "file").chmod(0o444)  # as DVC makes it: an output may be a hard link to it
    folder.chmod(0o555)
    monkeypatch.setattr(checkout.os, "access", lambda *_: False)
    check = checkout.cache(project)
    assert check.level == "problem"
    pasted(check, project)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "file")] == [0o755, 0o444]


def test_leftovers(tmp_path: Path) -> None:
    (tmp_path / ".mtbert" / ("a" * 24)).mkdir(parents=True)
    (tmp_path / ".mtbert" / ("a" * 24) / "x").write_bytes(b"12345")
    assert str(checkout.undeclared(tmp_path, {"baseline"})).startswith(
        "note    5 bytes of leftovers (1 × checkpoint of a run, stopped after step 0, 0.0 days ago); run `mtbert clean`"
    )
