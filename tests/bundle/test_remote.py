"""Work ends with its time limit, and says how each process ended."""

import signal
import time
from pathlib import Path

import pytest

from mtbert.bundle.remote import GRACE, Work


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_limit_stops_what_runs_and_starts_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    work, began = Work(tmp_path, GRACE + 2), time.monotonic()
    assert not work.call("long", "timeit", "-n", "1", "import time; time.sleep(60)")
    assert not work.call("next", "timeit", "pass")
    assert time.monotonic() - began < 30 and not work.failed and not work.minutes_left
    assert "timeit long: stopped after" in capsys.readouterr().out
    assert not (tmp_path / "logs/next.log").exists()


def test_a_failure_names_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    work = Work(tmp_path, 600)
    assert work.call("good", "timeit", "-n", "1", "-r", "1", "pass")
    assert not work.failed
    assert not work.call("bad", "timeit", "raise ValueError('no')")
    assert work.failed and "timeit bad: failed with status 1, see logs/bad.log" in capsys.readouterr().out
    assert "ValueError: no" in (tmp_path / "logs/bad.log").read_text(encoding="utf-8")
