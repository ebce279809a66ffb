"""How a stage starts and fails: exit status and one line, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from stages.common import guarded

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train"], "arguments needed: 1, given: 0; usage: python -m stages.train RUN_NAME"),
        (["table", "table1", "table2"], "arguments needed: 1, given: 2; usage: python -m stages.table NAME"),
        (["fetch", "now"], "arguments needed: 0, given: 1; usage: python -m stages.fetch"),
    ],
)
def test_wrong_arguments_are_one_usage_error(command: list[str], message: str) -> None:
    name, *arguments = command
    line = [sys.executable, "-m", f"stages.{name}", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (MtbertError("a.csv:3: bad; mend it"), 1, "error: a.csv:3: bad; mend it\n"),
        (OSError(28, "No space left on device", "models/x"), 1, "error: models/x: No space left on device; mend"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    raised: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_run: str) -> None:
        raise raised

    assert guarded(main, "baseline") == status
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: None) == 0
    assert capsys.readouterr().err == ""
