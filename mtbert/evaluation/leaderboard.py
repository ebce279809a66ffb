"""Prediction files in the exact format of the course, including its spaces and spelling."""

from collections.abc import Iterable
from pathlib import Path

from mtbert.files import atomic_write_text
from mtbert.tasks.task import Task


def write_predictions(folder: Path, task: Task, split: str, ids: Iterable[str], values: Iterable[float]) -> Path:
    """Write `{sst,para,sts}-{split}-output.csv`: a header, then `{id} , {value} ` per example.

    Like the course's code, it writes classes as integers and other values as floats: sst `3`, para `1.0`, sts `2.75`.
    """
    assert task.course is not None
    cells = (str(int(value)) if task.kind == "classes" else repr(float(value)) for value in values)
    rows = (f"{name} , {cell} \n" for name, cell in zip(ids, cells, strict=True))
    path = folder / f"{task.course.leaderboard}-{split}-output.csv"
    atomic_write_text(path, f"{task.course.header}\n" + "".join(rows))
    return path
