"""A run's progress, which its checkpoints hold, and which epoch's weights are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """A run's progress, which is part of its checkpoints.

    Attributes:
        batches, tokens: batches and real tokens trained on, by task.
        history: a row for each epoch: epoch, step, tokens so far, train_loss, and the metrics from `evaluate`.
        loss_sum: sum of the losses of the running epoch.
        log: checksum of the step log.
        seconds: training time, summed over resumed processes; time after a process's last checkpoint is not counted.
        processes: the numbers of processes that took the steps, in order: one number unless a run was resumed by more or fewer.
        conflicts: the rows of conflicts.csv, as in `mtbert.training.conflicts.Conflict`.
    """

    batches: dict[str, int]
    tokens: dict[str, int]
    history: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    log: str = ""
    seconds: float = 0.0
    processes: list[int] = field(default_factory=list)
    conflicts: list[list[Any]] = field(default_factory=list)


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """The epoch whose weights are kept: the first with the highest `held_out`, or the last if there is none."""
    scores = [row.get("held_out") for row in history]
    found = [score for score in scores if score is not None]
    return scores.index(max(found)) if found else len(history) - 1
