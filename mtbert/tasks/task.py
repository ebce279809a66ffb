"""A task as one value: its columns, its files, its kind of label, its names (section 5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["classes", "binary", "score"]

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Course:
    """What the course gives for a task.

    Attributes:
        files: the published file's name by split.
        rows: usable rows of the published files by split.
        wordpieces: mean length of a sentence there.
        leaderboard: the task's name in the course's prediction files.
        header: the header of those files, spelt as the course spells it.
    """

    files: Mapping[str, str]
    rows: Mapping[str, int]
    wordpieces: int
    leaderboard: str
    header: str


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: the key in params.yaml and in file names.
        title: the word that tables and figures use.
        texts: headers of the sentence columns, one or two.
        label: header of the label column.
        kind: classes (one of several), binary (0 or 1) or score (a number within a range).
        low, high: smallest and largest label, both included; of classes, the first and the last by number.
        classes: the classes' names as the files spell them, by number; empty where the files hold the numbers.
        course: for a task of the course; None for one that params.yaml declares.
        names: what the labels are called where the files hold numbers, by number; empty for the numbers themselves.
    """

    name: str
    title: str
    texts: tuple[str, ...]
    label: str
    kind: Kind
    low: float
    high: float
    classes: tuple[str, ...] = ()
    course: Course | None = field(default=None, hash=False)
    names: tuple[str, ...] = ()

    @property
    def is_pair(self) -> bool:
        """Whether an example has two sentences."""
        return len(self.texts) == 2

    @property
    def outputs(self) -> int:
        """Scores that a head gives for an example: one for each class, else one."""
        return int(self.high) + 1 if self.kind == "classes" else 1

    @property
    def labels(self) -> tuple[str, ...]:
        """What the labels are called, by number; empty for a score."""
        if self.kind == "score":
            return ()
        return self.names or self.classes or tuple(map(str, range(int(self.high) + 1)))

    def file(self, split: str) -> str:
        """The name of a split's file in `data.path`."""
        return self.course.files[split] if self.course else raw_name(self, split)

    def text_of(self, label: float) -> str:
        """A label, or the prediction of one, as files spell it."""
        if self.classes:
            return self.classes[int(label)]
        return str(float(label) if self.kind == "score" else int(label))


def raw_name(task: Task, split: str) -> str:
    """The name of a split's file in the raw folder."""
    return f"{task.name}-{split}.csv"
