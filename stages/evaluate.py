"""evaluate RUN: dev and, where labelled, test (section 5.2); per-example tables; the course's leaderboard files."""

import shutil
from pathlib import Path
from typing import Any

from mtbert.data.arrays import check_prepared, has_split, load_split
from mtbert.engines import engine_for
from mtbert.evaluation.leaderboard import write_predictions
from mtbert.evaluation.metrics import measured, tracked
from mtbert.evaluation.predict import raw_scores
from mtbert.files import atomic_json, replaced_folder
from mtbert.peft.convert import merge
from mtbert.pretrained.store import CONFIG, read_config
from mtbert.seal import seal
from mtbert.settings import Run
from mtbert.tabular import write_csv
from mtbert.tasks.objective import Predictions
from mtbert.tasks.paper import overall_of
from mtbert.tasks.task import Task
from mtbert.training.compute import resolve
from stages.common import METRICS, MODELS, PREPARED, RESULTS, confine, start
from stages.models import load_run, parents_of, weights_of, wrapper
from stages.planned import planned
from stages.provenance import RECORD, check_record, data_hash, record, write_record

EVALUATION = "evaluation.json"


def main(run_name: str) -> None:
    settings = planned("evaluate", run_name)["settings"]
    run = Run.model_validate(settings["run"])
    confine(PREPARED, MODELS / run_name, RESULTS / run_name, METRICS / f"{run_name}.json")
    compute = resolve(**settings["compute"])
    check_prepared(PREPARED, [part for part in ("train", "dev", "test") if (PREPARED / part).is_dir()])
    model = load_run(run, run_name)
    tokens = wrapper(model, settings["max_tokens"])
    trained = weights_of(MODELS / run_name)
    _check(run, run_name, trained["sha256"])
    merge(model)
    engine = engine_for(model.to(compute.device), compute)

    with replaced_folder(RESULTS / run_name) as folder:
        config = read_config(MODELS / run_name)
        metrics: dict[str, Any] = {"run": run_name}
        for part in ("dev", "test"):
            metrics[part] = {}
            scores: dict[str, float | None] = {}
            for name, task in run.known.items():
                if not has_split(PREPARED, name, part):  # the course's Quora test file is often not at hand
                    continue
                split, objective = load_split(PREPARED, task, part), run.heads[name]
                with engine.inference():
                    raw = raw_scores(model, name, split, tokens)
                predictions = objective.decide(raw, task)
                table = split.example_table()
                if task.course:
                    write_predictions(folder / "predictions", task, part, table["id"], predictions.values)
                _write_examples(folder / "examples" / f"{name}-{part}.csv", task, table, predictions)
                if split.labels is not None:
                    metrics[part][name] = measured(objective.metric, split.labels, predictions.values)
                    scores[name] = metrics[part][name][objective.metric]
            overall = overall_of(scores)
            if overall is not None:
                metrics[part]["overall"] = overall
        metrics |= {"parameters": config["parameters"], "training": config["training"]}
        atomic_json(folder / "metrics.json", metrics)
        for name in ("history.csv", RECORD):
            shutil.copyfile(MODELS / run_name / name, folder / name)
        write_record(
            folder / EVALUATION,
            record("evaluate", run_name, parents=[trained], **compute.describe(), **engine.describe()),
        )
        seal(folder)
    shown = tracked(metrics["dev"], run.known.values())
    atomic_json(METRICS / f"{run_name}.json", shown)
    print(f"{run_name} on dev: " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))


def _check(run: Run, name: str, weights: str) -> None:
    """Refuse weights that were made by other settings, from other data or from other weights than those that are there now."""
    now: dict[str, Any] = {"settings": run.model_dump(), "data": data_hash(), "weights": weights}
    parents = parents_of(run, name)
    if all(
        (folder / CONFIG).is_file() for folder in parents
    ):  # a model may be evaluated where its parents were not kept
        now["parents"] = [weights_of(folder) for folder in parents]
    check_record(name, now)


def _write_examples(path: Path, task: Task, table: Any, predictions: Predictions) -> None:
    """id, the sentences, label, prediction (a class by its name, where it has one) and score of every example."""
    columns = [name for name in ("id", "sentence1", "sentence2", "label") if name in table]
    cells = (table[name] for name in columns)
    predicted = (task.text_of(value) if task.classes else f"{value:g}" for value in predictions.values)
    values = predicted, (f"{score:.6f}" for score in predictions.scores)
    write_csv(path, [*columns, "prediction", "score"], zip(*cells, *values, strict=True))


if __name__ == "__main__":
    start(main)
