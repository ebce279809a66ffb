"""Every example of docs/export.md runs."""

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtbert.cli import app
from tests.export.conftest import CROSS, DORA, LINEAR, write_base

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


def test_the_examples(made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    adapted = made("mean", LINEAR, adapter=DORA)
    models = {"best_performance": made("mean", LINEAR), "cross_encoder": made("mean", CROSS), "dora_r16": adapted}
    for name, folder in {**models, "pretrained": adapted.parent / "pretrained"}.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    write_base(tmp_path / "path/to/the/encoder")
    monkeypatch.chdir(tmp_path)
    commands = [line for language, block in BLOCKS if not language for line in block.splitlines()]
    code = [block for language, block in BLOCKS if language == "python"]
    assert (len(commands), len(code)) == (5, 3)
    for command in commands:
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, done.output
    for block in code:
        Path("example.py").write_text(block, encoding="utf-8")
        runpy.run_path("example.py")
