"""Every example of docs/use.md runs."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtbert.cli import app

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/use.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]
CODE = [block for language, block in BLOCKS if language == "python"]


@pytest.fixture(autouse=True)
def _here(vivid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page names."""
    for name in ("models/best_performance", "elsewhere/copied"):
        shutil.copytree(vivid / "models/baseline", tmp_path / name)
    (tmp_path / "pairs.tsv").write_text("one\ttwo\nthree\tfour\n", encoding="utf-8")
    (tmp_path / "reviews.tsv").write_text("1\tgood\n2\tbad\n", encoding="utf-8")
    (tmp_path / "reviews.txt").write_text("good\nbad\n", encoding="utf-8")
    (tmp_path / "questions.csv").write_text("first,second\nWho?,What?\n,What?\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def in_a_shell(line: str) -> tuple[int, str, str]:
    command = line.replace("mtbert ", f"{sys.executable} -m mtbert ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def in_this_process(line: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command(line: str, tmp_path: Path) -> None:
    status, printed, errors = in_a_shell(line) if "|" in line else in_this_process(line)
    assert status == 0, errors
    bad = "warning: 1 bad row left out:\n  questions.csv:3: empty first\n"
    assert errors == (bad if "questions" in line else "")
    written = next((tmp_path / name for name in ("scores.csv", "labels.jsonl") if name in line), None)
    assert (written.read_text(encoding="utf-8") if written else printed).count("\n") in (2, 3)
    assert bool(written) != bool(printed)


def test_the_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = CODE
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    assert runpy.run_path("example.py")["vectors"].shape == (1, 8)
    assert "sts score 2 (0, 5)" in capsys.readouterr().out
    assert len(COMMANDS) == 5
