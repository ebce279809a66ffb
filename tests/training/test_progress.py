"""The progress line on terminals of any width, and the output without a terminal."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from mtbert.training import progress as module
from mtbert.training.log import Step
from mtbert.training.progress import Overall, TrainingProgress

RUN = "sampler_round_robin"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """clock(seconds): set the time since the start."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def shown(width: int, clock: Callable[[float], None], overall: Overall | None = None) -> str:
    """The line after 300 of 1,500 steps of 50 tokens each, in 10 seconds: 1,500 tokens/s, 40 seconds left."""
    clock(0)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with TrainingProgress(RUN, console, overall) as progress:
        for step in range(1, 301):
            clock(step / 30)
            progress.step(Step(step, 1500, 10, "sst", 0.5, 50))
        plain = Console(file=io.StringIO(), width=width)
        plain.print(progress._bar.get_renderable())
    (line,) = plain.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(line) <= width
    return line


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (140, ["\u2501", "0:00:10", "1,500 tokens/s", "loss 0.500", "300/1500", "0:00:40"], []),
        (100, ["0:00:10", "1,500 tokens/s", "loss 0.500", "300/1500", "0:00:40"], ["\u2501"]),
        (60, ["loss 0.500", "300/1500", "0:00:40"], ["\u2501"]),
        (40, [f"{RUN} epoch 10", "0:00:40"], ["\u2501", "loss"]),
    ],
)
def test_a_narrow_terminal_drops_the_bar_first_and_keeps_the_time_left(
    width: int, there: list[str], gone: list[str], clock: Callable[[float], None]
) -> None:
    line = shown(width, clock)
    assert all(part in line for part in there), line
    assert not any(part in line for part in gone), line


@pytest.mark.parametrize("width", [180, 100])
def test_all_runs_of_a_command(width: int, clock: Callable[[float], None]) -> None:
    """60,000 tokens of this run and 2,700,000 of those after it, at 1,500 a second, are half an hour and 40 seconds."""
    assert "run 4 of 15, all finished in about 31 min" in shown(width, clock, Overall(3, 15, 2_700_000))
    assert " of 15" not in shown(width, clock)


def test_without_a_terminal_there_is_a_line_per_epoch(clock: Callable[[float], None]) -> None:
    file = io.StringIO()
    with TrainingProgress(RUN, Console(file=file, width=60), Overall(0, 2, 9000)) as progress:
        progress.resume(1200, 1500)
        progress.epoch([{"epoch": 1, "step": 1000, "train_loss": 0.25, "dev_sts": None}])
        clock(10)
        progress.step(Step(1500, 1500, 2, "sst", 0.5, 50))
        progress.epoch([{"epoch": 2, "step": 1500, "train_loss": 0.125, "dev_sts": 0.5}])
    assert file.getvalue().splitlines() == [
        f"resuming {RUN} at step 1,200 of 1,500",
        f"{RUN} epoch 1, step 1000: train_loss 0.250",
        f"{RUN} epoch 2, step 1500: train_loss 0.125, dev_sts 0.500, run 1 of 2, all finished in about 30 min",
    ]
