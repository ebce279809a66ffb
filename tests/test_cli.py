"""The command line: help for every stage, exit codes, and errors without tracebacks."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtbert.cli import app
from mtbert.errors import MtbertError
from stages.common import guarded, inside

ROOT = Path(__file__).parent.parent
STAGES = sorted(
    path.stem for path in (ROOT / "stages").glob("*.py") if "start(main)" in path.read_text(encoding="utf-8")
)
assert len(STAGES) == 10
WITH_ARGUMENT = {"convert", "train", "evaluate", "table", "figure"}


def mtbert(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    code = "from mtbert.cli import main; main()"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_every_stage_is_a_command_with_help() -> None:
    runner = CliRunner()
    top = runner.invoke(app, ["--help"])
    assert top.exit_code == 0
    for stage in STAGES:
        assert f"\n  {stage} " in top.output
        page = runner.invoke(app, [stage, "--help"])
        assert page.exit_code == 0
        assert "--project" in page.output
        assert ("RUN" in page.output or "NAME" in page.output) == (stage in WITH_ARGUMENT)


@pytest.mark.parametrize("stage", sorted(WITH_ARGUMENT))
def test_a_missing_argument_is_a_usage_error(stage: str) -> None:
    result = CliRunner().invoke(app, [stage])
    assert result.exit_code == 2
    assert "Missing argument" in result.output


def test_outside_a_project(tmp_path: Path) -> None:
    done = mtbert("train", "baseline", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no params.yaml here")


def test_an_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = mtbert("train", "best_perfomance", "--project", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: no run is called 'best_perfomance'; did you mean 'best_performance'?\n"


def test_a_missing_input_says_what_to_do(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = mtbert("train", "baseline", "--project", str(tmp_path))
    assert done.returncode == 1
    assert "models/pretrained/config.json: not found" in done.stderr
    assert "dvc repro" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_run_cannot_be_converted(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = mtbert("convert", "baseline", "--project", str(tmp_path))
    assert done.returncode == 1
    assert "runs.baseline.adapter is null" in done.stderr


def test_help_loads_no_torch() -> None:
    code = "import sys; from mtbert.cli import app; print('torch' in sys.modules, 'dvc' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "False"]


def test_a_folder_of_the_settings_stays_inside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "link").symlink_to(tmp_path)
    monkeypatch.chdir(project)
    assert inside("sub/new", "report.folder") == Path("sub/new")
    for folder in ("..", "../other", "/etc", "link/reports", "sub/../..", "."):
        with pytest.raises(
            MtbertError, match=r"params\.yaml: report\.folder: .* leads out of .*; name a folder inside"
        ):
            inside(folder, "report.folder")


def test_memory_that_runs_out_in_a_stage_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    def hungry() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes.")

    def wrong() -> None:
        raise RuntimeError("shapes differ")

    assert guarded(hungry) == 1
    assert re.fullmatch(r"error: out of memory \(.*\); free memory, or lower prepare.max_tokens .*\n", capsys.readouterr().err)
    with pytest.raises(RuntimeError, match="shapes differ"):
        guarded(wrong)
