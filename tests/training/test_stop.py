"""SIGINT and SIGTERM during a run: the current step is saved, the run resumes to the same bits, and a second signal kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import Stopped
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.losses import cross_entropy
from mtbert.training import loop
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain
from mtbert.training.log import Observer, Step
from mtbert.training.loop import Training
from mtbert.training.recipe import Recipe
from mtbert.training.stop import stop_requests
from mtbert.training.work import checkpoint_step

STEPS = 12  # in 3 epochs
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture
def run(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> Callable[..., dict[str, Any]]:
    """run(work, on_step, evaluate): one attempt of a tiny run that writes checkpoints only after a signal."""

    def attempt(work: Path, on_step: Any = lambda _: None, evaluate: Any = lambda _: {}) -> dict[str, Any]:
        model, resumed = make_model(), []

        class Watch(Observer):
            def resume(self, done: int, steps: int) -> None:
                resumed.append((done, steps))

            def step(self, step: Step) -> None:
                on_step(step)

        progress = Training(
            Plain(model, Compute(torch.device("cpu"), bf16=False)),
            {"sst": make_split("sst", 14)},
            {"sst": cross_entropy},
            Recipe("sequential", STEPS // 3, epochs=3, batch_size=4, learning_rate=0.01, seed=3),
            wrapper=wrapper,
            evaluate=evaluate,
            observers=[Watch()],
            work=work,
            checkpoint_seconds=1e9,
        ).run()
        return {**asdict(progress), **model.state_dict(), "seconds": 0, "resumed": resumed}

    return attempt


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """Restore SIGINT's handler: a shell starts background commands with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = one.keys() - {"resumed"}
    return all(torch.equal(one[k], other[k]) if torch.is_tensor(one[k]) else one[k] == other[k] for k in keys)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
@pytest.mark.parametrize("at", [1, 4, 6, 12])  # 4 and 12 end an epoch
@pytest.mark.parametrize("unread", [1, 32], ids=["as on a CPU", "as on a GPU"])
def test_the_current_step_is_saved(
    run: Callable[..., dict[str, Any]], tmp_path: Path, number: signal.Signals, status: int, at: int, unread: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(loop.UNREAD, "cpu", unread)
    whole = run(tmp_path / "whole")
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    train_step = MultitaskModel.reseed

    def reseed(self: MultitaskModel, seed: int, step: int, share: None) -> None:
        """Called at the beginning of a step."""
        if step == at:
            os.kill(os.getpid(), number)
        train_step(self, seed, step, share)

    monkeypatch.setattr(MultitaskModel, "reseed", reseed)
    with pytest.raises(Stopped, match=rf"^stopped by {number.name} after step {at} of 12; the same command") as caught:
        run(tmp_path / "work")
    assert caught.value.status == status
    assert checkpoint_step(tmp_path / "work") == at
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = run(tmp_path / "work")
    assert resumed["resumed"] == [(at, 12)] and whole["resumed"] == []
    assert same(resumed, whole)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_an_evaluation_is_interrupted_and_repeated_after_resuming(
    run: Callable[..., dict[str, Any]], tmp_path: Path, epoch: int
) -> None:
    whole = run(tmp_path / "whole", evaluate=lambda _: {"dev": 1.0})
    asked = []

    def evaluate(_model: MultitaskModel) -> dict[str, float]:
        asked.append(len(asked))
        if asked[-1] == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return {"dev": 1.0}

    with pytest.raises(Stopped, match=f"after step {4 * epoch} of 12"):
        run(tmp_path / "work", evaluate=evaluate)
    assert checkpoint_step(tmp_path / "work") == 4 * epoch
    assert same(run(tmp_path / "work", evaluate=lambda _: {"dev": 1.0}), whole)


def test_a_signal_between_evaluations_raises_before_the_next_one() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), stop.between_steps():
            pytest.fail("evaluated")


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)])
def test_a_second_signal_kills_at_once(root: Path, first: signal.Signals, second: signal.Signals) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mtbert.training.stop import stop_requests\n"
        "with stop_requests():\n"
        f"    os.kill(os.getpid(), {first:d})\n"
        "    print('still here', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "still here\n"
    child.send_signal(second)
    assert child.wait(30) == -second
    child.stdout.close()


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_trains_without_handlers(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)
    work = threading.Thread(
        target=lambda: found.append(run(tmp_path, lambda _: found.append(signal.getsignal(signal.SIGTERM))))
    )
    work.start()
    work.join()
    assert found[:-1] == [before] * STEPS and found[-1]["history"][-1]["step"] == STEPS
