"""Where models err on dev: calibration, slices, distances between classes, agreement of runs, and labels that runs contradict.

It goes beyond section 6.1 of the paper. reports/PROFILE/errors.json keeps it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtbert.evaluation.agreement import Agreement, agreements
from mtbert.evaluation.calibration import Calibration, Line, calibration, calibration_line
from mtbert.evaluation.label_noise import contradicted
from mtbert.evaluation.ordinal import Ordinal, ordinal
from mtbert.evaluation.resampling import LEVEL, Measured, draws, wilson, with_data
from mtbert.evaluation.slices import Contrast, contrasts, slices
from mtbert.report.plain import plain
from mtbert.report.predictions import confidence, numbered
from mtbert.report.results import TEXTS
from mtbert.report.statistics import SEED, lines
from mtbert.tasks.task import Task

ERRORS = "errors.json"  # in reports/PROFILE
RESAMPLES = 1_000  # fewer than for scores, since these are kept in memory and give no p
FEWEST = 400  # the ends of a 95% interval need as many, whatever memory they take
LARGEST = 2**24  # resamples times examples: more than 16,777 examples have fewer resamples


class Diagnosis(NamedTuple):
    """Where a run errs on a task.

    Attributes:
        trained: whether the run was trained on the task.
        calibration: None if labels are scores.
        line: None unless labels are scores.
        ordinal: None unless classes are ordered.
        slices: errors are wrong labels, or distances from the least-squares line of the labels over the predicted scores: within a slice,
            Pearson's r would depend on how far apart its labels are.
    """

    trained: bool
    calibration: Calibration | None
    line: Line | None
    ordinal: Ordinal | None
    slices: Sequence[Contrast]


class Candidate(NamedTuple):
    """An example whose label may be wrong.

    Attributes:
        label: the one it has.
        runs: how many contradict it.
        probability: of the other label, on average over runs.
    """

    id: str
    texts: Sequence[str]
    label: str
    runs: int
    probability: float


class Accuracy(NamedTuple):
    """A run's accuracy on all examples, and without those whose label runs contradict; NaN if there are no others."""

    everything: Measured
    without: Measured


class LabelNoise(NamedTuple):
    """Labels that more than half of the runs contradict, those with the most probable other label first.

    Attributes:
        runs: those trained on the task.
        unanimous: how many labels all of them contradict.
        accuracy: of each run. The candidates were chosen by the runs' own errors, so the accuracy without them is too optimistic.
    """

    runs: Sequence[str]
    unanimous: int
    accuracy: Mapping[str, Accuracy]
    candidates: Sequence[Candidate]


class TaskErrors(NamedTuple):
    """A task: its title, the numbers of examples and resamples, each run's diagnosis, the agreement of runs, and the label noise."""

    title: str
    examples: int
    resamples: int
    runs: Mapping[str, Diagnosis]
    agreement: Mapping[tuple[str, str], Agreement]
    noise: LabelNoise | None


def analyse(folder: Path, metrics: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task]) -> dict[str, TaskErrors]:
    """Analyse the dev errors of runs, by task. A run's diagnosis does not depend on what other runs there are.

    Args:
        folder: the results folder.
        metrics: metrics.json of each run, all evaluated on the same examples.

    Raises:
        MtbertError: a file is missing or damaged.
    """
    found = {}
    for task in tasks:
        if tables := {run: numbered(folder, run, task) for run, about in metrics.items() if task.name in about["dev"]}:
            trained = [run for run in tables if task.name in metrics[run]["training"]["tasks"]]
            found[task.name] = _analysed(task, tables, trained)
    return found


def to_plain(found: Mapping[str, TaskErrors], findings: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, Any]:
    """The analysis for JSON, by task; numbers have four significant digits. Candidates for a wrong label are without their texts.

    Args:
        findings: sentences by task and run.
    """
    parts = {}
    for name, task in found.items():
        part = plain(task._replace(agreement={}), digits=4)
        for run, sentences in findings[name].items():
            part["runs"][run] = {"findings": list(sentences), **part["runs"][run]}
        part["agreement"] = [{"runs": pair, **plain(how, digits=4)} for pair, how in task.agreement.items()]
        for candidate in part["noise"]["candidates"] if part["noise"] else []:
            del candidate["texts"]  # which may not be ours to publish
        parts[name] = part
    return parts


def to_json(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """What errors.json holds: level and seed, and what `to_plain` returned, a line for each run and pair of runs."""
    head = {"level": LEVEL, "seed": SEED}
    tasks = []
    for name, part in parts.items():
        entries = {
            key: lines(value) if value and key in ("runs", "agreement") else json.dumps(value, allow_nan=False)
            for key, value in part.items()
        }
        body = ",\n".join(f"{json.dumps(key)}: {entry}" for key, entry in entries.items())
        tasks.append(f"{json.dumps(name)}: {{{body}}}")
    return json.dumps(head)[:-1] + ',\n"tasks": {\n' + ",\n".join(tasks) + "\n}}\n"


def _analysed(task: Task, tables: Mapping[str, pd.DataFrame], trained: Sequence[str]) -> TaskErrors:
    examples = next(iter(tables.values()))
    labels, rows, key = examples["label"].to_numpy(), len(examples), [SEED, *task.name.encode()]
    resamples = max(FEWEST, min(RESAMPLES, LARGEST // rows))
    drawn = with_data(draws(rows, resamples, np.random.default_rng(key)))
    parts = slices([examples[name].tolist() for name in TEXTS if name in examples])
    predictions = {run: table["prediction"].to_numpy() for run, table in tables.items()}
    runs = {}
    for run, table in tables.items():
        predicted = predictions[run]
        if task.kind == "score":
            line = calibration_line(labels, predicted, drawn)
            runs[run] = Diagnosis(run in trained, None, line, None, contrasts(_residuals(labels, predicted), parts))
        else:
            right = predicted == labels
            calibrated = calibration(confidence(task, table), right, drawn, np.random.default_rng([*key, 1]))
            ordered = task.kind == "classes" and not task.classes  # numbers, not names
            distances = ordinal(labels, predicted, task.outputs, drawn) if ordered else None
            runs[run] = Diagnosis(run in trained, calibrated, None, distances, contrasts(~right, parts))
    pairs = agreements(labels, np.stack(list(predictions.values())), drawn, scores=task.kind == "score")
    names = list(tables)
    return TaskErrors(
        task.title,
        rows,
        resamples,
        runs,
        {(names[first], names[second]): how for (first, second), how in pairs.items()},
        _noise(task, {run: tables[run] for run in trained}) if task.kind == "binary" and len(trained) > 1 else None,
    )


def _residuals(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The labels' distances from their least-squares line over the predictions, (B,)."""
    x, y = predictions - predictions.mean(), labels - labels.mean()
    spread = x @ x
    return np.asarray(np.abs(y - x * (x @ y / spread if spread else 0.0)))


def _share(right: np.ndarray) -> Measured:
    return wilson(int(right.sum()), len(right)) if len(right) else Measured(np.nan, np.nan, np.nan)


def _noise(task: Task, tables: Mapping[str, pd.DataFrame]) -> LabelNoise:
    examples = next(iter(tables.values()))
    labels = examples["label"].to_numpy()
    duplicate = np.stack([table["score"].to_numpy() for table in tables.values()])
    against = contradicted(labels, duplicate).sum(0)
    probability = np.where(labels == 1, 1 - duplicate, duplicate).mean(0)
    chosen = 2 * against > len(tables)
    accuracy = {}
    for run, table in tables.items():
        right = (table["prediction"] == table["label"]).to_numpy()
        accuracy[run] = Accuracy(*(_share(part) for part in (right, right[~chosen])))
    candidates = [
        Candidate(
            examples["id"][row],
            [examples[name][row] for name in TEXTS if name in examples],
            task.labels[int(labels[row])],
            int(against[row]),
            float(probability[row]),
        )
        for row in sorted(np.flatnonzero(chosen), key=lambda row: (-probability[row], row))
    ]
    return LabelNoise(list(tables), int((against == len(tables)).sum()), accuracy, candidates)
