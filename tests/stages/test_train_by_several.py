"""`torchrun -m stages.train`: what several processes leave, and how they stop, fail and resume together."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from mtbert.errors import MtbertError
from mtbert.pipeline.start import guarded
from mtbert.pretrained.store import load_model
from mtbert.training.distributed import Group
from mtbert.training.work import work_folders
from stages import evaluate, train
from tests.project import start

TRAIN = ("-m", "stages.train", "baseline")


def begin(project: Path, processes: int) -> subprocess.Popen[str]:
    """Start training in the test project; it writes a checkpoint after each step."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return start(project, sys.executable, *(torchrun if processes > 1 else ()), *TRAIN, GLOO_SOCKET_IFNAME="lo")


def finish(project: Path, processes: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Train to the end; the output."""
    if processes == 1:
        train.main("baseline")
        return capsys.readouterr().out
    process = begin(project, processes)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def await_step(step: int) -> None:
    """Wait for the checkpoint of this step or a later one."""
    end = time.monotonic() + 60
    while max((work.step for work in work_folders(Path(".mtbert"))), default=0) < step:
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.02)


def workers(torchrun: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that torchrun started, in order."""
    return sorted(psutil.Process(torchrun.pid).children(), key=lambda one: int(one.environ()["RANK"]))


@pytest.fixture
def long(project: Path, change: Callable[..., None]) -> Path:
    """The project with a longer run, not trained yet."""
    change(baseline={"epochs": 2, "epoch_end": 60, "batch_size": 6, "learning_rate": 1e-4})
    shutil.rmtree("models/baseline")
    return project


def check_equal_to_one_process(processes: list[int]) -> None:
    """Compare the trained model with that of one undisturbed process, which it replaces."""
    weights, _ = load_model(Path("models/baseline"))
    files = sorted(path.name for path in Path("models/baseline").iterdir())
    record = json.loads(Path("models/baseline/record.json").read_text(encoding="utf-8"))
    assert record["processes"] == processes
    assert not work_folders(Path(".mtbert"))
    train.main("baseline")
    alone, _ = load_model(Path("models/baseline"))
    assert sorted(path.name for path in Path("models/baseline").iterdir()) == files
    for name, weight in alone.items():
        if not name.endswith("key.bias"):  # its gradient is zero but for rounding, which AdamW scales up
            assert float((weights[name] - weight).abs().max()) < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "resumed_by"), [(1, 1), (0, 3)])
def test_if_one_is_killed_all_end_and_any_number_resumes(
    long: Path, killed: int, resumed_by: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torchrun = begin(long, 2)
    await_step(10)
    processes = workers(torchrun)
    processes[killed].kill()
    torchrun.communicate(timeout=60)
    assert torchrun.returncode == 1
    assert not any(one.is_running() for one in processes)
    assert not Path("models/baseline").exists()
    (work,) = work_folders(Path(".mtbert"))
    assert work.step >= 10
    assert f"resuming baseline at step {work.step} of 120" in finish(long, resumed_by, capsys)
    check_equal_to_one_process([2, resumed_by])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["torchrun", "one process"])
def test_after_a_signal_all_stop_at_the_same_step(
    long: Path, number: signal.Signals, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    process = begin(long, 1)
    await_step(5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    torchrun = begin(long, 3)
    await_step(20)
    (torchrun if to == "torchrun" else workers(torchrun)[2]).send_signal(number)
    output = torchrun.communicate(timeout=60)[0]
    (work,) = work_folders(Path(".mtbert"))
    message = f"stopped by {number.name} after step {work.step} of 120; the same command resumes from there"
    assert output.count(message) == 1, output
    assert f"resuming baseline at step {work.step} of 120" in finish(long, 2, capsys)
    check_equal_to_one_process([1, 3, 2])


def test_other_stages_refuse_torchrun(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert guarded(evaluate.main, "baseline") == 1
    assert "WORLD_SIZE is 2, but this command is for one process; start it without torchrun" in capsys.readouterr().err
    assert not Path("results").exists()


def test_there_are_no_more_processes_than_examples_in_a_batch(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "joined", lambda _: nullcontext(Group(0, 9)))
    with pytest.raises(
        MtbertError, match=r"runs\.baseline\.batch_size is 8, too few examples for 9 processes; start 8"
    ):
        train.main("baseline")
