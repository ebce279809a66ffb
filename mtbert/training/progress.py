"""What one sees of a run: on a terminal a bar with loss, tokens/s and time left; elsewhere a line per epoch."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtbert.training.log import Step


class TrainingProgress:
    """Shows the steps and epochs of one run, and the speed of this process; use as a context manager."""

    def __init__(self, run: str, console: Console | None = None) -> None:
        self._run = run
        self._console = console or Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(run, total=None, loss="", speed="")
        self._loss: float | None = None
        self._began = time.monotonic()
        self._tokens = 0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, step: Step) -> None:
        """Move the bar; the loss shown is a running mean, since single batches jump between tasks."""
        self._tokens += step.tokens
        self._loss = step.loss if self._loss is None else 0.98 * self._loss + 0.02 * step.loss
        self._bar.update(
            self._task,
            completed=step.step,
            total=step.steps,
            description=f"{self._run} epoch {step.epoch}",
            loss=f"loss {self._loss:.3f}",
            speed=f"{self._tokens / max(time.monotonic() - self._began, 1e-9):,.0f} tokens/s",
        )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One line with the epoch's metrics."""
        told = [f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)]
        self._console.print(
            f"{self._run} epoch {row['epoch']}, step {row['step']}: {', '.join(told)}", highlight=False, soft_wrap=True
        )
