"""Read the files that the evaluate stage writes."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import metric_of
from mtbert.evaluation.watched import watched
from mtbert.report.reading import reading
from mtbert.report.statistics import OVERALL
from mtbert.seal import check_seal
from mtbert.tabular import read_csv
from mtbert.tasks.paper import CURVE

PARTS = ("dev", "test", "parameters", "training")
TEXTS = ("sentence1", "sentence2")  # columns of examples; the second is there for pairs
RECORDED = ("device", "threads", "precision")
Rows = Mapping[str, str]  # of a table or figure in params.yaml, {row: run}; there is at least one


def metrics(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/metrics.json: scores, parameter counts and facts about the training.

    Raises:
        MtbertError: the file is missing or damaged; the message names the stage to run.
    """
    return _json(results, run, "metrics.json", PARTS, dict)


def scores(entries: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores in the section `dev` or `test` of metrics.json, by `overall` and task; None where undefined."""
    tasks = {task: entry[metric_of(entry)] for task, entry in entries.items() if task != OVERALL}
    return {OVERALL: entries.get(OVERALL), **tasks}


def record(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/record.json: settings, parent weights, device, precision and threads of the run's training.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    return _json(results, run, "record.json", RECORDED, object)


def examples(results: Path, run: str, task: str, split: str = "dev", *, numeric: bool = True) -> pd.DataFrame:
    """A table with a row per example. The score is a number; id and sentences are text, even `None` and `NA`.

    Args:
        numeric: whether label and prediction are numbers, rather than names of classes.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    with _reading(results, run, f"examples/{task}-{split}.csv") as path:
        table = pd.DataFrame(read_csv(path), dtype=str)
        columns = ["label", "prediction", "score"]
        _require(["id", *columns], table)
        numbers = columns if numeric else ["score"]
        table[numbers] = table[numbers].astype(float)
    return table


def history(results: Path, run: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table with a row per epoch; epoch 0 is the model before training.

    Args:
        columns: those that it must have besides `epoch`.

    Raises:
        MtbertError: the file is missing or damaged, or lacks a column.
    """
    with _reading(results, run, "history.csv") as path:
        table = pd.DataFrame(read_csv(path)).apply(pd.to_numeric)
        _require(("epoch", *columns), table)
    return table


def watched_examples(results: Path, run: str, part: str) -> int:
    """How many examples of `dev` or `train` an accuracy on SST in the run's history is measured on."""
    found, settings = metrics(results, run), record(results, run)["settings"]
    most = watched(settings["epoch_end"], settings["batch_size"], len(settings["heads"]))
    examples = min(found["dev"][CURVE.name]["n"], most)
    # A run that does not train on SST is watched on its training examples too.
    return min(examples, found["training"]["sizes"].get(CURVE.name, examples)) if part == "train" else examples


def conflicts(results: Path, run: str) -> pd.DataFrame:
    """The run's conflicts.csv, a row per measurement, layer and pair of tasks (`mtbert.training.conflicts`).

    Raises:
        MtbertError: the run was not asked to measure them, or the file is damaged.
    """
    if "measure_conflicts" not in record(results, run)["settings"]:
        raise MtbertError(
            f"params.yaml: runs.{run} measures no conflicts; set runs.{run}.measure_conflicts: 20, or remove it from the figure"
        )
    with _reading(results, run, "conflicts.csv") as path:
        table = pd.DataFrame(read_csv(path), dtype=str)
        _require(("step", "layer", "first", "second", "cosine"), table)
        numbers = [name for name in table.columns if name not in ("layer", "first", "second")]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    return table


def dotted(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The settings of a run's record by dotted key, as in params.yaml."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= dotted(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return found


def _json(results: Path, run: str, name: str, keys: Sequence[str], kind: type) -> dict[str, Any]:
    with _reading(results, run, name) as path:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        _require(keys, {key: value for key, value in found.items() if isinstance(value, kind)})
    return found


def _require(names: Sequence[str], found: Container[str]) -> None:
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"no {' and no '.join(missing)} in it")


@contextmanager
def _reading(results: Path, run: str, name: str) -> Iterator[Path]:
    """Verify the checksum of a run's file and yield its path; errors name the command that writes the file again."""
    path = results / run / name
    with reading(path, f"evaluate@{run}"):
        if path.is_file():
            check_seal(results / run, name)
        yield path
