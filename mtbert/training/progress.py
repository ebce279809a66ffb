"""Show a run's progress: on a terminal, a bar with loss, tokens/s and time left; elsewhere, a line per epoch."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtbert.training.log import Observer, Step


class Overall(NamedTuple):
    """A run's place among the runs of one command.

    Attributes:
        done_runs, total_runs: runs trained before this one, and all runs.
        remaining_tokens: tokens that the later runs will train on; their time is estimated at this run's speed.
    """

    done_runs: int
    total_runs: int
    remaining_tokens: int


class _Bar(Progress):
    """A progress bar of one line. On a narrow terminal the least important columns are dropped, never the time left."""

    def __init__(self, console: Console) -> None:
        run, overall = TextColumn("{task.description}"), TextColumn("{task.fields[overall]}")
        bar, count, loss = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}")
        speed, elapsed, left = TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TimeRemainingColumn()
        self._all = (run, bar, count, loss, speed, elapsed, left, overall)
        self._out = console  # rich renders once before it sets its own attribute
        self._least_important_first = (bar, elapsed, speed, loss, count, overall)
        super().__init__(*self._all, console=console, disable=not console.is_terminal, get_time=time.monotonic)

    def get_renderable(self) -> RenderableType:
        unlimited = self._out.options.update(max_width=10_000)
        for dropped in range(len(self._least_important_first) + 1):
            self.columns = tuple(column for column in self._all if column not in self._least_important_first[:dropped])
            table = self.make_tasks_table(self.tasks)
            if self._out.measure(table, options=unlimited).maximum <= self._out.width:
                break
        return table


class TrainingProgress(Observer):
    """Shows the steps, epochs and speed of one run; a context manager.

    Args:
        run: its name.
        console: where to print; None is standard output.
        overall: None if the command trains this run alone.
    """

    def __init__(self, run: str, console: Console | None = None, overall: Overall | None = None) -> None:
        self._run, self._overall = run, overall
        self._console = console or Console()
        self._bar = _Bar(self._console)
        self._task = self._bar.add_task(run, total=None, loss="", speed="", overall="")
        self._loss: float | None = None
        self._began = time.monotonic()
        self._tokens = self._steps = self._latest = 0
        self._estimate = ""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def resume(self, done: int, steps: int) -> None:
        """Print the step that the run resumes at."""
        self._print(f"resuming {self._run} at step {done:,} of {steps:,}")

    def step(self, step: Step) -> None:
        """Update the bar; it shows a running mean of the loss, since single batches jump between tasks."""
        if step.step < self._latest:  # further pretraining has ended
            self._tokens = self._steps = 0
            self._loss, self._began = None, time.monotonic()
        self._tokens += step.tokens
        self._steps += step.step != self._latest  # a step of several batches counts once
        self._latest = step.step
        self._loss = step.loss if self._loss is None else 0.98 * self._loss + 0.02 * step.loss
        speed = self._tokens / max(time.monotonic() - self._began, 1e-9)
        self._estimate = "" if self._overall is None else _time_left(self._overall, self._remaining_tokens(step), speed)
        self._bar.update(
            self._task,
            completed=step.step,
            total=step.steps,
            description=f"{self._run} epoch {step.epoch}",
            loss=f"loss {self._loss:.3f}",
            speed=f"{speed:,.0f} tokens/s",
            overall=self._estimate,
        )

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Print the epoch's metrics and, if there is no bar, the time that all runs will take."""
        row = history[-1]
        parts = [f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)]
        parts += [self._estimate] if self._estimate and not self._console.is_terminal else []
        self._print(f"{self._run} epoch {row['epoch']}, step {row['step']}: {', '.join(parts)}")

    def _remaining_tokens(self, step: Step) -> float:
        """Tokens of the run's remaining steps, estimated from the steps so far."""
        return self._tokens / self._steps * (step.steps - step.step)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def _time_left(overall: Overall, remaining: float, speed: float) -> str:
    minutes = (remaining + overall.remaining_tokens) / speed / 60
    return f"run {overall.done_runs + 1} of {overall.total_runs}, all finished in about {minutes:,.0f} min"
