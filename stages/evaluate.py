"""evaluate RUN: dev and, where labelled, test (section 5.2); per-example tables; the course's leaderboard files."""

import csv
import shutil
from pathlib import Path
from typing import Any

from mtbert.data.arrays import Split, load_split
from mtbert.data.tasks import TASKS
from mtbert.errors import MtbertError
from mtbert.evaluation.leaderboard import write_predictions
from mtbert.evaluation.metrics import accuracy, majority_share, overall, pearson
from mtbert.evaluation.predict import Predictions, decide, raw_scores
from mtbert.files import atomic_json, replaced_folder
from mtbert.model.store import CONFIG, read_config
from mtbert.params import CosineEmbedding, Run, load_params
from mtbert.peft.convert import merge
from mtbert.seal import seal
from mtbert.training.compute import Compute, machine, resolve
from stages.common import MODELS, PREPARED, RESULTS, confine, start
from stages.models import load_run, start_of, weights_of, wrapper
from stages.provenance import RECORD, check_record, data_hash, origin

EVALUATION = "evaluation.json"


def main(run_name: str) -> None:
    params = load_params()
    run = params.run(run_name)
    confine(PREPARED, MODELS / run_name, start_of(run, run_name), RESULTS / run_name)
    compute = resolve(params.compute.device, params.compute.precision, params.compute.threads)
    model = load_run(run, MODELS / run_name)
    tokens = wrapper(model, params.prepare.max_tokens)
    _check(run, run_name)
    merge(model)
    model.to(compute.device).eval()
    cosine, clamp = isinstance(run.sts, CosineEmbedding), getattr(run.sts, "clamp", True)

    with replaced_folder(RESULTS / run_name) as folder:
        config = read_config(MODELS / run_name)
        metrics: dict[str, Any] = {"run": run_name}
        for part in ("dev", "test"):
            metrics[part] = {}
            for task in TASKS:
                if not (PREPARED / task / part).is_dir():  # the course's Quora test file is often not at hand
                    continue
                split = load_split(PREPARED, task, part)
                with compute.autocast():
                    raw = raw_scores(model, task, split, tokens)
                predictions = decide(task, raw, cosine=cosine, clamp=clamp)
                table = split.example_table()
                write_predictions(folder / "predictions", TASKS[task], part, table["id"], predictions.values)
                _write_examples(folder / "examples" / f"{task}-{part}.csv", table, predictions)
                if split.labels is not None:
                    metrics[part][task] = _metrics(task, split, predictions)
            scores = metrics[part]
            if len(scores) == len(TASKS) and scores["sts"]["pearson"] is not None:
                scores["overall"] = overall(
                    scores["sst"]["accuracy"], scores["quora"]["accuracy"], scores["sts"]["pearson"]
                )
        metrics |= {"parameters": config["parameters"], "training": config["training"]}
        atomic_json(folder / "metrics.json", metrics)
        for name in ("history.csv", RECORD):
            shutil.copyfile(MODELS / run_name / name, folder / name)
        atomic_json(folder / EVALUATION, _record(run, run_name, compute))
        seal(folder)
    told = {"overall": metrics["dev"].get("overall")}
    told |= {task: metrics["dev"][task].get("accuracy", metrics["dev"][task].get("pearson")) for task in TASKS}
    print(
        f"{run_name} on dev: "
        + ", ".join(f"{name} {value:.3f}" if value is not None else f"{name} undefined" for name, value in told.items())
    )


def _check(run: Run, name: str) -> None:
    """Refuse weights that were made by other settings, from other data or from other weights than those that are there now."""
    now = {"settings": run.model_dump(), "data": data_hash(PREPARED), "weights": weights_of(MODELS / name)["sha256"]}
    parent = start_of(run, name)
    if (parent / CONFIG).is_file():  # a model may be evaluated where its parent was not kept
        now["parent"] = weights_of(parent)
    check_record(MODELS / name, now)


def _record(run: Run, name: str, compute: Compute) -> dict[str, Any]:
    """The record of the evaluation, whose parent is the trained model; that of the training lies beside it."""
    about = {"parent": weights_of(MODELS / name), **compute.describe(), "machine": machine()}
    return origin(f"evaluate {name}", run.model_dump(), PREPARED, **about)


def _metrics(task: str, split: Split, predictions: Predictions) -> dict[str, float | int | None]:
    assert split.labels is not None
    if task == "sts":
        try:
            return {"pearson": pearson(split.labels, predictions.values), "n": len(split)}
        except MtbertError as error:  # a collapsed model's predictions are constant: no score then, and no overall
            print(f"warning: {error}")
            return {"pearson": None, "n": len(split)}
    return {
        "accuracy": accuracy(split.labels, predictions.values),
        "n": len(split),
        "majority": majority_share(split.labels),
    }


def _write_examples(path: Path, table: Any, predictions: Predictions) -> None:
    """id, the sentences, label, prediction and score of every example."""
    path.parent.mkdir(exist_ok=True)
    columns = [name for name in ("id", "sentence1", "sentence2", "label") if name in table]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "prediction", "score"])
        cells = (table[name] for name in columns)
        values = (f"{value:g}" for value in predictions.values), (f"{score:.6f}" for score in predictions.scores)
        writer.writerows(zip(*cells, *values, strict=True))


if __name__ == "__main__":
    start(main)
