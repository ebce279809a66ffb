"""What a run leaves to read, steps.csv and history.csv: the same whether or not it was interrupted."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.tabular import write_csv


class Step(NamedTuple):
    """What a step reports to its observers: `loss` is the batch's mean, `tokens` its real tokens."""

    step: int
    steps: int
    epoch: int
    task: str
    loss: float
    tokens: int


class Observer:
    """What is called while a run trains. Interrupted or not, a run makes the same calls, from the checkpoint on."""

    def resume(self, done: int, steps: int) -> None:
        """The run goes on from a checkpoint of `done` steps."""

    def step(self, step: Step) -> None:
        """A step was taken and its loss read."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch ended; the history's new row. Epoch 0 is the model before training."""


def log_line(step: Step) -> str:
    """The line of steps.csv about one step."""
    return f"{step.step},{step.epoch},{step.task},{step.loss!r},{step.tokens}\n"


def log_checksum(before: str, line: str) -> str:
    """The checksum of a log, given that of the lines before its last; empty for no line."""
    return hashlib.sha256((before + line).encode()).hexdigest()


class StepLog(Observer):
    """steps.csv, a line per step: step, epoch, task, loss, tokens.

    Args:
        path: the file, kept beside the checkpoints while the run lasts.
        done: steps of the checkpoint that is resumed from; later lines are cut off and written again.
        checksum: what `log_checksum` gives for those steps' lines, as the checkpoint holds it; None: not compared.

    Raises:
        MtbertError: the file has fewer lines than the checkpoint has steps, or other lines.
    """

    HEADER = "step,epoch,task,loss,tokens\n"

    def __init__(self, path: Path, done: int, checksum: str | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remedy = f"remove {path.parent} to train from the beginning"
        text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        lines = text.splitlines(keepends=True)[: done + 1]
        if done and len(lines) <= done:
            raise MtbertError(
                f"{path}: has {max(0, len(lines) - 1)} steps, but the checkpoint beside it {done}; {remedy}"
            )
        found = ""
        for line in lines[1:]:
            found = log_checksum(found, line)
        if done and checksum is not None and (lines[0], found) != (self.HEADER, checksum):
            raise MtbertError(
                f"{path}: its first {done} steps are not those that the checkpoint beside it was made after; {remedy}"
            )
        atomic_write_text(path, "".join(lines) if done else self.HEADER)
        self._file = path.open("a", encoding="utf-8")

    def step(self, step: Step) -> None:
        """Append one step; the kernel has it when this returns, so a kill loses nothing."""
        self._file.write(log_line(step))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """history.csv, a row per epoch, epoch 0 being the model before training; undefined metrics stay empty."""
    rows = list(rows)
    write_csv(path, list(rows[0]), (list(row.values()) for row in rows))
