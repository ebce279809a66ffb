"""A task: its columns, files, kind of label and names (section 5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["classes", "binary", "score"]

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Course:
    """What the course defines for a task.

    Attributes:
        files: names of the published files by split.
        rows: numbers of usable rows in these files by split.
        wordpieces: mean length of their sentences.
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
    """A task.

    Attributes:
        name: the key in params.yaml and in file names.
        title: the name in tables and figures.
        texts: headers of the sentence columns, one or two.
        label: header of the label column.
        kind: classes (one of several), binary (0 or 1) or score (a number within a range).
        low, high: smallest and largest label, inclusive; for classes, the numbers of the first and the last.
        classes: names of the classes in the files, in order; empty if the files hold numbers.
        course: None for a task declared in params.yaml.
        names: readable names of the labels where the files hold numbers, in order; empty for the numbers themselves.
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
        """Number of outputs of a linear head per example: one for each class, else one."""
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
        """A label or prediction as it is written in files."""
        if self.classes:
            return self.classes[int(label)]
        return str(float(label) if self.kind == "score" else int(label))


def raw_name(task: Task, split: str) -> str:
    """The name of a split's file in the raw folder."""
    return f"{task.name}-{split}.csv"
