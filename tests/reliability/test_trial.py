"""A figure is ok if all trials passed and every planted bug was caught; a figure without trials is not."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability import __main__ as command
from tests.reliability.trial import Tally


def counted(trials: list[bool], controls: list[bool], needed: float = 1.0) -> Tally:
    tally = Tally(9, "a figure", "all", seed=3, needed=needed)
    for n, ok in enumerate(trials):
        tally.trial(ok, f"trial {n}")
    for n, caught in enumerate(controls):
        tally.control(caught, f"bug {n}")
    return tally


@pytest.mark.parametrize(
    ("trials", "controls", "needed", "ok"),
    [
        ([True, True], [True], 1.0, True),
        ([True, False], [True], 1.0, False),
        ([True, False], [True], 0.5, True),
        ([True, True], [True, False], 1.0, False),
        ([True, True], [], 1.0, False),
        ([], [True], 1.0, False),
    ],
)
def test_what_is_kept(trials: list[bool], controls: list[bool], needed: float, ok: bool) -> None:
    tally = counted(trials, controls, needed)
    assert tally.ok == ok
    assert (tally.trials, tally.passed) == (len(trials), sum(trials))
    assert len(tally.failures) == trials.count(False) + controls.count(False)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run figures in this process, where the patches apply."""
    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda jobs, **_: ThreadPoolExecutor(jobs))


@pytest.mark.parametrize("passes", [True, False])
def test_the_command_s_status_and_reports(
    passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "FILES", ("one",))
    monkeypatch.setattr(command, "run", lambda name, quick, seed: [counted([True, passes], [True])])
    monkeypatch.setattr(sys, "argv", ["reliability", "--seed", "3"])
    assert command.main() == (0 if passes else 1)
    printed = capsys.readouterr().out
    assert "seed 3" in printed
    assert ("trial 1" in printed) == (not passes)
    report = json.loads(Path("reports/reliability.json").read_text(encoding="utf-8"))
    assert (report["seed"], report["tier"]) == (3, "full")
    assert report["figures"][0]["ok"] is passes
    assert f"| {'yes' if passes else 'NO'} |" in Path("docs/reliability.md").read_text(encoding="utf-8")


def test_a_named_figure_is_run_alone_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda name, quick, seed: [counted([quick], [name == "kills"])])
    monkeypatch.setattr(sys, "argv", ["reliability", "kills", "--quick"])
    assert command.main() == 0
    assert not list(tmp_path.iterdir())
