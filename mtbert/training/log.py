"""What a run leaves to read: steps.csv, history.csv and dvclive's metrics, the same whether or not it was interrupted."""

import csv
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.training.loop import Step


class StepLog:
    """steps.csv, a line per step: step, epoch, task, loss, tokens.

    Args:
        path: the file, kept beside the checkpoints while the run lasts.
        done: steps of the checkpoint that is resumed from; later lines are cut off and written again.

    Raises:
        MtbertError: the file has fewer lines than the checkpoint has steps.
    """

    HEADER = "step,epoch,task,loss,tokens\n"

    def __init__(self, path: Path, done: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        if done and len(lines) <= done:
            raise MtbertError(
                f"{path}: has {max(0, len(lines) - 1)} steps, but the checkpoint beside it {done}; "
                f"remove {path.parent} to train from the beginning"
            )
        atomic_write_text(path, "".join(lines[: done + 1]) if done else self.HEADER)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: Step) -> None:
        """Append one step; in the kernel's hands when this returns, so a kill loses nothing."""
        self._file.write(f"{step.step},{step.epoch},{step.task},{step.loss!r},{step.tokens}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Live:
    """dvclive's plots of the epochs' metrics, in `folder`; rewritten from the first epoch on when a run resumes."""

    def __init__(self, folder: Path) -> None:
        from dvclive import Live as DvcLive
        from scmrepo.exceptions import SCMError

        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._live = DvcLive(str(folder), save_dvc_exp=False, dvcyaml=None, monitor_system=False)
        except SCMError as error:
            raise MtbertError(f"git: {error}; dvclive asks for the current commit, so make a first one") from None
        except sqlite3.Error as error:  # dvclive opens DVC's own state; a full disk reads "disk I/O error" there
            raise MtbertError(f"DVC's state: {error}; free disk space and run again") from None

    def write(self, row: Mapping[str, Any]) -> None:
        """Log one row of the history at its epoch."""
        self._live.step = row["epoch"]
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self) -> None:
        self._live.end()


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """history.csv, a row per epoch, epoch 0 being the model before training; undefined metrics stay empty."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
