"""The three tasks (section 5.1): what their files, columns and labels look like."""

from dataclasses import dataclass, field
from typing import Literal

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Task:
    """One task as its files describe it.

    Attributes:
        name: the key in params.yaml and in file names.
        title: the word that tables and figures use.
        label: header of the label column.
        texts: headers of the sentence columns, one or two.
        kind: class (a level), binary (yes or no) or regression (a number).
        low, high: smallest and largest label, both included.
        leaderboard: the name in the course's prediction files.
        leaderboard_header: the header of those files, spelt as the course spells it.
        published: the course's file name per split.
    """

    name: str
    title: str
    label: str
    texts: tuple[str, ...]
    kind: Literal["class", "binary", "regression"]
    low: float
    high: float
    leaderboard: str
    leaderboard_header: str
    published: dict[str, str] = field(hash=False)

    @property
    def is_pair(self) -> bool:
        """Whether an example has two sentences."""
        return len(self.texts) == 2


def _published(stem: str) -> dict[str, str]:
    return {"train": f"{stem}-train.csv", "dev": f"{stem}-dev.csv", "test": f"{stem}-test-student.csv"}


SST = Task(
    name="sst",
    title="Sentiment",
    label="sentiment",
    texts=("sentence",),
    kind="class",
    low=0,
    high=4,
    leaderboard="sst",
    leaderboard_header="id \t Predicted_Sentiment ",
    published=_published("ids-sst"),
)
QUORA = Task(
    name="quora",
    title="Paraphrase",
    label="is_duplicate",
    texts=("sentence1", "sentence2"),
    kind="binary",
    low=0,
    high=1,
    leaderboard="para",
    leaderboard_header="id \t Predicted_Is_Paraphrase ",
    published=_published("quora"),
)
STS = Task(
    name="sts",
    title="STS",
    label="similarity",
    texts=("sentence1", "sentence2"),
    kind="regression",
    low=0,
    high=5,
    leaderboard="sts",
    leaderboard_header="id \t Predicted_Similiary ",
    published=_published("sts"),
)

TASKS = {task.name: task for task in (SST, QUORA, STS)}


def raw_name(task: Task, split: str) -> str:
    """The name of a split's file in the raw folder."""
    return f"{task.name}-{split}.csv"
