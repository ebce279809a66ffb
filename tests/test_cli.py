"""The command line: help for every stage, exit codes, and errors without tracebacks."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtbert.cli import app
from mtbert.pipeline.start import guarded
from tests.processes import unread

ROOT = Path(__file__).parent.parent
STAGES = sorted(
    path.stem
    for path in (ROOT / "stages").glob("*.py")
    if "start(main" in path.read_text(encoding="utf-8")
    and path.stem not in {"study", "provenance"}  # of the studies' graph
)
assert len(STAGES) == 11
WITH_ARGUMENT = {"convert", "train", "evaluate", "table", "figure"}


def module(name: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process, as a user does."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **variables}
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def invoke(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """invoke(*arguments): run the command in this process, whose folder and import path are as before afterwards."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", ["mtbert", "mtbert.cli"])
def test_both_modules_are_the_command(name: str) -> None:
    assert module(name, "--version").stdout == f"mtbert {version('mtbert')}\n"
    assert module(name, "trian").returncode == 2


@pytest.mark.parametrize("columns", [60, 200])
def test_help_is_complete_and_as_wide_as_the_terminal(columns: int) -> None:
    printed = module("mtbert", "--help", COLUMNS=str(columns)).stdout
    assert max(map(len, printed.splitlines())) in range(columns - 20, columns)
    for command in app.registered_commands:
        assert command.callback
        assert " ".join((command.callback.__doc__ or "?").split()) in " ".join(printed.split())


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
        if stage in WITH_ARGUMENT:
            without = runner.invoke(app, [stage])
            assert without.exit_code == 2 and "Missing argument" in without.output


def test_outside_a_project(tmp_path: Path) -> None:
    done = module("mtbert", "train", "baseline", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no params.yaml here")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Settings and code without any outputs."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for package in ("mtbert", "stages"):
        (tmp_path / package).symlink_to(ROOT / package)
    return tmp_path


def test_settings_without_the_stages_beside_them(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = module("mtbert", "train", "baseline", "--project", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: no stages/train.py here")
    assert "Traceback" not in done.stderr


def test_an_unknown_run_names_the_nearest(project: Path, invoke: Callable[..., Result]) -> None:
    done = invoke("train", "best_perfomance", "--project", str(project))
    assert done.exit_code == 1
    assert done.stderr == "error: params.yaml: no run is called 'best_perfomance'; did you mean 'best_performance'?\n"


def test_a_missing_input_says_what_to_do(project: Path, invoke: Callable[..., Result]) -> None:
    done = invoke("train", "baseline", "--project", str(project))
    assert done.exit_code == 1
    assert done.stderr == "error: data/prepared/sha256.json: not found; run `dvc repro prepare`\n"
    done = invoke("convert", "dora_r4", "--project", str(project))
    assert done.exit_code == 1
    assert "models/pretrained/config.json: not found; run `dvc repro encoder`" in done.stderr


def test_a_full_run_has_no_adapter_to_convert(project: Path, invoke: Callable[..., Result]) -> None:
    done = invoke("convert", "baseline", "--project", str(project))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "baseline: no adapter for the pretrained weights\n", "")
    assert (project / "build/plan/convert/baseline.json").is_file()


@pytest.mark.parametrize(
    "command", ["mtbert --help", "mtbert --version", "mtbert doctor", "mtbert convert baseline", "stages.plan"]
)
def test_a_reader_that_has_ended_is_no_error(project: Path, command: str) -> None:
    """Like Unix tools that SIGPIPE ends, whether Typer writes the output or Python when it exits; tests/test_compare.py has Rich."""
    assert unread(project, *command.split(), code=ROOT) == (141, b"")


def test_help_loads_no_torch() -> None:
    code = "import sys; from mtbert.cli import app; print('torch' in sys.modules, 'dvc' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "False"]


def test_clean_asks_and_doctor_reports(
    tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    left = tmp_path / "results/dropped/metrics.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}\n", encoding="utf-8")
    there = ("--project", str(tmp_path))
    line = "   3 bytes  results/dropped: output of a run that params.yaml does not declare\n"
    for arguments, status in (("--dry-run",), 0), ((), 1):  # no answer on stdin
        done = invoke("clean", *arguments, *there)
        assert (done.exit_code, left.exists()) == (status, True)
        assert line in done.stdout
    done = invoke("doctor", *there)
    assert done.exit_code == 1
    assert "problem DVC 3" in done.stdout
    assert "note    3 bytes of leftovers" in done.stdout
    assert invoke("clean", "--yes", *there).exit_code == 0
    assert not left.exists()
    assert invoke("clean", *there).stdout == "Nothing to remove.\n"
    (tmp_path / "params.yaml").write_text("runs: {", encoding="utf-8")
    fault = invoke("clean", *there).stderr.removeprefix("error: params.yaml")
    monkeypatch.setattr("mtbert.doctor.project.output", lambda *_: None)  # what git and DVC say is tested above
    assert f"params.yaml{fault}" in invoke("doctor", *there).stdout


def test_out_of_memory_in_a_stage_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    def hungry() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes.")

    def wrong() -> None:
        raise RuntimeError("shapes differ")

    assert guarded(hungry) == 1
    assert re.fullmatch(
        r"error: out of memory \(.*\); free memory, or lower prepare.max_tokens .*\n", capsys.readouterr().err
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        guarded(wrong)


@pytest.mark.parametrize("command", ["mtbert --version", "stages.plan"])
def test_a_full_disk_under_the_output_is_one_error(project: Path, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        line, environment = [sys.executable, "-m", *command.split()], {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, cwd=project, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard output: No space left on device; free space on that disk, then run the same command again\n",
    )


def test_a_folder_that_cannot_be_entered_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtbert.cli import main

    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mtbert", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        return capsys.readouterr().err

    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (["plan"], ["plan", "--data", "x"], ["bundle", "x"], ["take", "x"]):
        assert printed(*arguments).startswith("error: the current folder has been removed; change to another folder")
    monkeypatch.setattr(Path, "is_file", denied)
    assert printed("plan", "-C", str(tmp_path)).startswith(f"error: {tmp_path}/params.yaml: Permission denied; give")


def test_the_folder_of_the_option_data_is_seen_from_where_the_command_is_given(
    project: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr("mtbert.pipeline.cost.main", lambda _profile, data, _study: given.append(data))
    here = Path.cwd()
    for data in ("mine", "~nobody-of-that-name/x", "download"):
        monkeypatch.chdir(here)
        done = invoke("plan", "--data", data, "--project", str(project))
        assert done.exit_code == 0, done.exception
    assert given == [str(here / "mine"), str(here / "~nobody-of-that-name/x"), "download"]
