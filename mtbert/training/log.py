"""A run's logs, steps.csv and history.csv; an interrupted and resumed run writes the same bytes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Self

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.tabular import write_csv


class Step(NamedTuple):
    """The log of a training step's batch: `loss` is its mean, `tokens` counts its real tokens.

    A step of the joint sampler has several, all with its number.
    """

    step: int
    steps: int
    epoch: int
    task: str
    loss: float
    tokens: int


class Observer:
    """Receives a run's events. A resumed run repeats the calls for the steps after its checkpoint."""

    def resume(self, done: int, steps: int) -> None:
        """The run resumes from a checkpoint after `done` steps."""

    def step(self, step: Step) -> None:
        """A step is done and the loss of a batch of it is known."""

    def epoch(self, history: Sequence[dict[str, Any]]) -> None:
        """An epoch ended; the last row of `history` is its own, the first that of the model before training, epoch 0."""


def log_line(step: Step) -> str:
    """A batch's line in steps.csv."""
    return f"{step.step},{step.epoch},{step.task},{step.loss!r},{step.tokens}\n"


def log_checksum(before: str, line: str) -> str:
    """The checksum of a log that `line` is appended to; `before` is the checksum so far, empty for an empty log."""
    return hashlib.sha256((before + line).encode()).hexdigest()


class StepLog(Observer):
    """Writes steps.csv, a line per batch: step, epoch, task, loss, tokens.

    Args:
        path: the file, kept beside the checkpoints during training.
        done: steps of the checkpoint that training resumes from; later lines are removed and written again.
        checksum: the checkpoint's checksum (`log_checksum`) of these lines; None skips the comparison.

    Raises:
        MtbertError: the file's lines are not those of the checkpoint's steps.
    """

    HEADER = "step,epoch,task,loss,tokens\n"

    def __init__(self, path: Path, done: int, checksum: str | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remedy = f"remove {path.parent} to train from the beginning"
        text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        text = text[: text.rfind("\n") + 1]  # a kill may have torn the last line
        header, *rows = text.splitlines(keepends=True) or [""]
        lines = [header, *takewhile(lambda line: _step_of(line) <= done, rows)]
        last = _step_of(lines[-1])
        if last < done:
            raise MtbertError(f"{path}: has {last} steps, but the checkpoint beside it has {done}; {remedy}")
        found = ""
        for line in lines[1:]:
            found = log_checksum(found, line)
        if done and checksum is not None and (lines[0], found) != (self.HEADER, checksum):
            raise MtbertError(f"{path}: its first {done} steps are not those of the checkpoint beside it; {remedy}")
        atomic_write_text(path, "".join(lines) if done else self.HEADER)
        self._file = path.open("a", encoding="utf-8")

    def step(self, step: Step) -> None:
        """Append one step and flush it to the kernel, so that a kill loses nothing."""
        self._file.write(log_line(step))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _step_of(line: str) -> int:
    """The number of a line's step; 0 if it has none."""
    number = line.partition(",")[0]
    return int(number) if number.isdecimal() else 0


class LearningCurve(Observer):
    """Writes the history after every epoch, where DVC's plots, and its extension for VS Code, read it while the run trains."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def epoch(self, history: Sequence[dict[str, Any]]) -> None:
        write_history(self._path, history)


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write history.csv, a row per epoch; epoch 0 is the model before training, and undefined metrics are empty cells."""
    rows = list(rows)
    write_csv(path, list(rows[0]), (list(row.values()) for row in rows))
