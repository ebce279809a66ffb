"""The paper's three tasks (section 5.1), their overall score (5.2), and the tasks that params.yaml declares beside them."""

from collections.abc import Mapping
from typing import Any

from mtbert.tasks.task import Course, Task


def _files(stem: str) -> dict[str, str]:
    return {"train": f"{stem}-train.csv", "dev": f"{stem}-dev.csv", "test": f"{stem}-test-student.csv"}


SST = Task(
    name="sst",
    title="Sentiment",
    texts=("sentence",),
    label="sentiment",
    kind="classes",
    low=0,
    high=4,
    course=Course(
        files=_files("ids-sst"),
        rows={"train": 8544, "dev": 1101, "test": 2210},
        wordpieces=22,
        leaderboard="sst",
        header="id \t Predicted_Sentiment ",
    ),
    names=("negative", "somewhat negative", "neutral", "somewhat positive", "positive"),
)
QUORA = Task(
    name="quora",
    title="Paraphrase",
    texts=("sentence1", "sentence2"),
    label="is_duplicate",
    kind="binary",
    low=0,
    high=1,
    course=Course(
        files=_files("quora"),
        rows={"train": 141498, "dev": 20212, "test": 40431},
        wordpieces=14,
        leaderboard="para",
        header="id \t Predicted_Is_Paraphrase ",
    ),
    names=("different", "duplicate"),
)
STS = Task(
    name="sts",
    title="STS",
    texts=("sentence1", "sentence2"),
    label="similarity",
    kind="score",
    low=0,
    high=5,
    course=Course(
        files=_files("sts"),
        rows={"train": 6040, "dev": 863, "test": 1725},
        wordpieces=14,
        leaderboard="sts",
        header="id \t Predicted_Similiary ",
    ),
)

TASKS = {task.name: task for task in (SST, QUORA, STS)}
# Each task's metric (section 5.2), under its name in `results/RUN/metrics.json`.
METRIC_OF = {SST.name: "accuracy", QUORA.name: "accuracy", STS.name: "pearson"}
CURVE = SST  # Figure 2 plots its accuracy over epochs, on examples of dev and of training
# Names that a declared task must not have: keys, columns and files of these three use them, and torch assigns `training`, of whatever
# is named so in a module.
RESERVED = {*TASKS, *(task.title.lower() for task in TASKS.values()), "overall", "training"}


def overall(sst: float, quora: float, sts: float) -> float:
    """The leaderboard's score, (acc_sst + acc_para + (1 + r) / 2) / 3.

    Section 5.2 prints (0.5 + r) instead of (1 + r) / 2, but only (1 + r) / 2 gives the paper's own Table 1.
    """
    return (sst + quora + (1 + sts) / 2) / 3


def overall_of(scores: Mapping[str, float | None]) -> float | None:
    """The overall score from the tasks' scores; None if one of the three is missing or undefined. Other tasks do not count."""
    found = [scores.get(name) for name in (SST.name, QUORA.name, STS.name)]
    return None if None in found else overall(*found)  # type: ignore[arg-type]


def known_tasks(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """The paper's tasks, then the declared ones in alphabetical order, by name.

    Args:
        declared: the checked section `tasks` of params.yaml: `texts`, `label`, `kind`, and `classes` or `low` and `high`.
    """
    return TASKS | {name: _task(name, **declared[name]) for name in sorted(declared)}


def _task(name: str, texts: Any, label: str, kind: Any, classes: Any = None, low: Any = None, high: Any = None) -> Task:
    classes = tuple(classes or ())
    low, high = {"classes": (0, len(classes) - 1), "binary": (0, 1), "score": (low, high)}[kind]
    return Task(name, name, tuple(texts), label, kind, low, high, classes)
