"""A stage that fails gives an exit status and one line, never a traceback; one that DVC started ends with DVC."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from mtbert.errors import MtbertError
from mtbert.pipeline.start import guarded, start
from stages import table, train
from tests.processes import at_work, wait_until

ROOT = Path(__file__).parents[2]


def test_wrong_arguments_are_one_usage_error() -> None:
    command = [sys.executable, "-m", "stages.fetch", "now"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    message = "error: arguments needed: 0, given: 1; usage: python -m stages.fetch\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        (train, [], "arguments needed: 1, given: 0; usage: python -m stages.train RUN_NAME"),
        (table, ["table1", "table2"], "arguments needed: 1, given: 2; usage: python -m stages.table NAME"),
    ],
)
def test_the_usage_names_the_argument(
    stage: ModuleType,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [stage.__file__, *arguments])
    with pytest.raises(SystemExit) as ended:
        start(stage.main)
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (MtbertError("a.csv:3: bad; mend it"), 1, "error: a.csv:3: bad; mend it\n"),
        (OSError(28, "No space left", "a/x"), 1, "error: a/x: No space left; free space on that disk"),
        (PermissionError(13, "Permission denied", "a/x"), 1, "error: a/x: Permission denied; give yourself read"),
        (OSError(5, "Input/output error", "a/x"), 1, "error: a/x: Input/output error; remove the cause, then run"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    raised: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_run: str) -> None:
        raise raised

    assert guarded(main, "baseline") == status
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: None) == 0
    assert capsys.readouterr().err == ""


SLOW = """
import time
time.sleep(0.6)  # as heavy imports take
from pathlib import Path
from mtbert.pipeline.start import start

def main() -> None:
    time.sleep(0.6)
    Path("out").write_text("written")

start(main)
"""
STAYS = """#!/bin/sh
/bin/sh "$@"
exit $?
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project whose only stage imports for a while, then writes `out`; and a shell that stays its parent, like dash and fish."""
    folder = tmp_path_factory.mktemp("slow")
    for name in (
        "mtbert/__init__.py",
        "mtbert/errors.py",
        "mtbert/pipeline/start.py",
        "mtbert/pipeline/plans.py",
        "stages/__init__.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "stages/slow.py").write_text(SLOW, encoding="utf-8")
    (folder / "dvc.yaml").write_text("stages: {slow: {cmd: python -m stages.slow, outs: [out]}}", encoding="utf-8")
    (folder / "stays").write_text(STAYS, encoding="utf-8")
    (folder / "stays").chmod(0o755)
    command(folder, "dvc", "init", "-q", "--no-scm").wait()
    return folder


def command(project: Path, *words: str, shell: str = "/bin/sh") -> subprocess.Popen[bytes]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    variables |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SHELL": str(project / shell),
        "DVC_SITE_CACHE_DIR": str(project / ".site"),
    }
    return subprocess.Popen(words, cwd=project, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("shell", ["/bin/bash", "stays"])
@pytest.mark.parametrize("delay", [0.0, 0.4, 0.9])
def test_a_stage_ends_when_dvc_is_killed(slow: Path, delay: float, shell: str) -> None:
    """Before the stage has begun, while it imports, and while it works."""
    dvc = command(slow, "dvc", "repro", "-q", "-f", shell=shell)
    wait_until(lambda: psutil.Process(dvc.pid).children())
    time.sleep(delay)
    (slow / "out").unlink(missing_ok=True)
    dvc.kill()
    dvc.wait()
    wait_until(lambda: not at_work(slow))
    assert not (slow / "out").exists()


@pytest.mark.parametrize("shell", ["/bin/bash", "stays"])
def test_a_stage_continues_while_dvc_runs(slow: Path, shell: str) -> None:
    (slow / "out").unlink(missing_ok=True)
    assert command(slow, "dvc", "repro", "-q", "-f", shell=shell).wait() == 0
    assert (slow / "out").exists()


def test_a_stage_started_by_hand_outlives_its_shell(slow: Path) -> None:
    (slow / "out").unlink(missing_ok=True)
    assert command(slow, "sh", "-c", "python -m stages.slow & sleep 0.2").wait() == 0
    wait_until(lambda: not at_work(slow))
    assert (slow / "out").exists()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.9])
def test_a_stage_ends_when_snakemake_is_killed(slow: Path, delay: float) -> None:
    """A shell is in Snakemake's place; it gives its process id as the Snakefile does."""
    (slow / "out").unlink(missing_ok=True)
    snakemake = command(slow, "bash", "-c", "MTBERT_STARTED_BY=$$ sh -c 'python -m stages.slow; exit $?'; exit $?")
    wait_until(lambda: psutil.Process(snakemake.pid).children())
    time.sleep(delay)
    snakemake.kill()
    snakemake.wait()
    wait_until(lambda: not at_work(slow))
    assert not (slow / "out").exists()


@pytest.mark.parametrize(
    "start", ["import stages", "from mtbert.cli import app; app(['plan', '-C', '/'], standalone_mode=False)"]
)
@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_the_user_decides(start: str, own: str | None) -> None:
    """OpenMP reads the variable while torch is imported, so it must be set before."""
    code = (
        f"import os, sys\ntry:\n    {start}\nfinally:\n    print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if own:
        environment["OMP_WAIT_POLICY"] = own
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{own or 'PASSIVE'} False\n", done.stderr


EARLY = """
import sys, time
from pathlib import Path
from mtbert.pipeline.start import start

def wait_in(part):
    if part == sys.argv[1]:
        Path(part).touch()
        time.sleep(60)

def main(part):
    wait_in("main")

wait_in("imports")
start(main)
"""


@pytest.mark.parametrize(
    ("part", "status", "message"), [("imports", -signal.SIGINT, ""), ("main", 130, "interrupted;")]
)
def test_ctrl_c_is_no_traceback(slow: Path, part: str, status: int, message: str) -> None:
    """While the stage is imported it ends at once; later as `guarded` has it. Where the signal is ignored, as under nohup, it stays so."""
    (slow / "stages/early.py").write_text(EARLY, encoding="utf-8")
    for handler in (signal.SIG_IGN, signal.SIG_DFL):
        (slow / part).unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.early", part],
            cwd=slow,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, handler),
        )
        wait_until((slow / part).exists)
        process.send_signal(signal.SIGINT)
        if handler == signal.SIG_IGN:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.kill()
        errors = process.communicate()[1]
    assert process.returncode == status
    assert errors.startswith(message) and errors.count("\n") == bool(message)


def test_an_error_in_a_study_names_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(error: Exception) -> None:
        raise error

    (tmp_path / "studies/mine").mkdir(parents=True)
    (tmp_path / "studies/study.yaml").touch()
    monkeypatch.chdir(tmp_path / "studies/mine")
    for error in (MtbertError("a.json: not found; run `dvc repro train@a`"), PermissionError(13, "Denied", "a")):
        assert guarded(main, error) == 1
        assert capsys.readouterr().err.startswith("error: in studies/mine: a")
