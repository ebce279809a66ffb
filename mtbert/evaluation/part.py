"""Evaluate a run on dev or test (section 5.2): metrics, example tables and the course's prediction files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.leaderboard import write_predictions
from mtbert.evaluation.metrics import task_metrics
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel
from mtbert.tabular import write_csv
from mtbert.tasks.objective import Objective, Predictions
from mtbert.tasks.paper import overall_of
from mtbert.tasks.task import Task


def evaluate_part(
    model: MultitaskModel,
    tasks: Mapping[str, Task],
    objectives: Mapping[str, Objective],
    splits: Mapping[str, Split],
    wrapper: Wrapper,
    part: str,
    folder: Path,
) -> dict[str, Any]:
    """Predict each split and write `examples/TASK-PART.csv` and, for the course's tasks, files in `predictions/`.

    Args:
        tasks, objectives: of the model's heads, by name.
        splits: by task, labelled or not; a task may be missing.
        part: dev or test, for file names.

    Returns:
        Metrics by task of the labelled splits, and `overall` if the paper's three tasks are among them.
    """
    metrics: dict[str, Any] = {}
    for name, split in splits.items():
        predictions = objectives[name].decide(raw_scores(model, name, split, wrapper), tasks[name])
        table = split.example_table()
        if tasks[name].course:
            write_predictions(folder / "predictions", tasks[name], part, table["id"], predictions.values)
        _write_examples(folder / "examples" / f"{name}-{part}.csv", tasks[name], table, predictions)
        if split.labels is not None:
            metrics[name] = task_metrics(objectives[name].metric, split.labels, predictions.values)
    overall = overall_of({name: found[objectives[name].metric] for name, found in metrics.items()})
    return metrics if overall is None else {**metrics, "overall": overall}


def _write_examples(path: Path, task: Task, table: Any, predictions: Predictions) -> None:
    """Write id, sentences, label, prediction (as the name of the class, if it has one) and score of every example."""
    columns = [name for name in ("id", "sentence1", "sentence2", "label") if name in table]
    cells = (table[name] for name in columns)
    # Nine digits tell any two float32 apart: an untrained model's cosines differ in the last ones.
    predicted = (task.text_of(value) if task.classes else f"{value:.9g}" for value in predictions.values)
    values = predicted, (f"{score:.6f}" for score in predictions.scores)
    write_csv(path, [*columns, "prediction", "score"], zip(*cells, *values, strict=True))
