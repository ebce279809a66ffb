"""Work ends with its time limit, and says how each process ended."""

import signal
import time
from pathlib import Path

import pytest
import torch

from mtbert.bundle import remote
from mtbert.bundle.remote import GRACE, Waiting, Work
from mtbert.pipeline.paths import PRETRAINED
from mtbert.pretrained.store import load_masked_head, load_model, save_masked_head, save_model


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_limit_stops_what_runs_and_starts_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, began = Work(tmp_path, GRACE + 2), time.monotonic()
    assert not work.call("long", "timeit", "-n", "1", "import time; time.sleep(60)")
    assert not work.call("next", "timeit", "pass")
    assert time.monotonic() - began < 30 and not work.failed and not work.minutes_left
    assert "timeit long: stopped after" in capsys.readouterr().out
    assert not (tmp_path / "logs/next.log").exists()


def test_a_run_that_cannot_finish_is_left_out_for_a_shorter_one() -> None:
    waiting = Waiting({"a": 900, "b": 800, "c": 700, "d": 100})
    assert waiting.next(50.0) == "a"  # nothing is known yet
    waiting.took("a", 90.0)
    assert [waiting.next(75.0), waiting.next(75.0), waiting.next(9.0)] == ["c", "d", None]
    waiting.took("c", 7.0)  # the median is .055 seconds a token now
    assert [waiting.next(45.0), waiting.next(45.0)] == ["b", None]


def test_what_does_not_stop_is_killed_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GRACE", 1.0)
    work, began = Work(tmp_path, 3), time.monotonic()
    assert not work.call(
        "deaf", "timeit", "-n", "1", "-s", "import signal as s, time; s.signal(15, s.SIG_IGN)", "time.sleep(60)"
    )
    assert time.monotonic() - began < 30


def test_what_a_killed_stage_left_unfinished_is_done_again(project: Path) -> None:
    assert remote._stages("baseline") == ["evaluate"]
    Path("results/baseline").mkdir(parents=True)
    Path(".mtbert/log/train-baseline.json").unlink()
    assert remote._stages("baseline") == ["train", "evaluate"]


@pytest.mark.parametrize("what", ["results", "log"])
def test_what_cannot_be_written_fails_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    def bring_back(out: Path, run: str, weights: bool) -> None:
        if (run, what) == ("first", "results"):
            raise OSError(28, "No space left on device", "first.tar.gz")

    if what == "log":
        (tmp_path / "logs/first.log").mkdir(parents=True)
    monkeypatch.setattr(remote, "_stages", lambda run: ["train"] if (run, what) == ("first", "log") else [])
    monkeypatch.setattr(remote, "bring_back", bring_back)
    monkeypatch.setattr(remote, "_give_inputs", lambda folder: None)
    work = Work(tmp_path, 600)
    remote._train(work, {"fp16": False, "runs": {"first": 2, "second": 1}}, ["first", "second"], 1, False)
    printed = capsys.readouterr().out
    assert work.failed and "runs finished: 1 of 2; not: first" in printed
    assert "first: cannot be started, or its log or results cannot be written ([Errno " in printed
    assert f"first.{'tar.gz' if what == 'results' else 'log'}'); remove the cause" in printed


def test_a_failure_names_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(tmp_path, 600)
    assert work.call("good", "timeit", "-n", "1", "-r", "1", "pass")
    assert not work.failed
    assert not work.call("bad", "timeit", "raise ValueError('no')")
    assert work.failed and "timeit bad: failed with status 1, see logs/bad.log" in capsys.readouterr().out
    assert "ValueError: no" in (tmp_path / "logs/bad.log").read_text(encoding="utf-8")


def test_restored_weights_are_beside_the_same_head_for_masked_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    PRETRAINED.mkdir(parents=True)
    head = save_masked_head(PRETRAINED, {"bias": torch.ones(3)})
    save_model(PRETRAINED, {"a": torch.ones(2).half()}, {"encoder": {}, "source": {"name": "tiny"}, **head})
    for _ in range(2):
        remote._restore_weights()
        tensors, config = load_model(PRETRAINED)
        assert tensors["a"].dtype == torch.float32 and config["source"]["rounded"] == "fp16"
        assert load_masked_head(PRETRAINED) is not None
