"""What the shell offers on Tab, asked for as the scripts of `mtbert --show-completion` ask for it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MTBERT = "import sys; sys.argv = ['mtbert', *sys.argv[1:]]; from mtbert.cli import main; main()"


def run(project: Path, *arguments: str, **variables: str) -> str:
    command = [sys.executable, "-c", MTBERT, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def offered(project: Path, line: str, shell: str = "bash") -> list[str]:
    """The words that the shell is given for the last word of the line."""
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    answer = run(project, _MTBERT_COMPLETE=f"complete_{shell}", **asked[shell])
    return re.findall(r'"(\w+)"', answer) if shell == "zsh" else answer.split()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Settings, a trained run, and a folder that is no trained run."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for name, config in {"mine": {"tasks": {"sst": {}, "topic": {}}}, "pretrained": {}}.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_set_up_and_offered_the_runs(project: Path, shell: str) -> None:
    home = project / "home"
    home.mkdir()
    run(project, "--install-completion", shell, HOME=str(home), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    written = [path.read_text(encoding="utf-8") for path in home.rglob("*") if path.is_file()]
    assert any(f"_MTBERT_COMPLETE=complete_{shell}" in text for text in written)
    assert offered(project, "mtbert train dora_r1", shell) == ["dora_r16"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mtbert conv", ["convert"]),
        ("mtbert figure ", ["figure1", "figure2", "figure3", "figure4"]),
        ("mtbert plan paper", ["paper", "paper_minilm"]),
        ("mtbert predict ", ["mine"]),
        ("mtbert predict mine ", ["sst", "topic"]),
        ("mtbert predict models/mine t", ["topic"]),
        ("mtbert predict none ", []),
        ("mtbert export m", ["mine"]),
        ("mtbert compare baseline dora_r3", ["dora_r32"]),
    ],
)
def test_commands_and_arguments_are_offered_by_name(project: Path, line: str, words: list[str]) -> None:
    assert offered(project, line) == words


def test_the_project_may_be_elsewhere_and_faults_offer_nothing(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert offered(elsewhere, "mtbert train base") == []
    assert offered(elsewhere, f"mtbert train -C {project} base") == ["baseline"]
    (project / "params.yaml").write_text("runs: {", encoding="utf-8")
    (project / "models/mine/config.json").write_text("[]", encoding="utf-8")
    assert offered(project, "mtbert train ") == offered(project, "mtbert predict ") == []
