"""evaluate RUN: dev and, where labelled, test (section 5.2); per-example tables; the course's leaderboard files."""

import shutil

from mtbert.data.arrays import check_prepared, has_split
from mtbert.engines import engine_for
from mtbert.evaluation.metrics import tracked
from mtbert.evaluation.part import evaluate_part
from mtbert.files import atomic_json, replaced_folder
from mtbert.peft.convert import merge
from mtbert.pipeline.models import load_run, parents_of, splits, wrapper
from mtbert.pipeline.paths import METRICS, MODELS, PREPARED, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import EVALUATION, RECORD, check_trained, record, weights_of, write_record
from mtbert.pipeline.start import start
from mtbert.pretrained.store import WEIGHTS, read_config
from mtbert.seal import seal
from mtbert.settings.run import Run
from mtbert.tasks.task import SPLITS
from mtbert.training.compute import resolve
from mtbert.training.conflicts import CONFLICTS


def main(run_name: str) -> None:
    settings = planned("evaluate", run_name)["settings"]
    run = Run.model_validate(settings["run"])
    confine(PREPARED, MODELS / run_name, RESULTS / run_name, METRICS / f"{run_name}.json")
    check_prepared(PREPARED, [part for part in SPLITS if (PREPARED / part).is_dir()])
    compute = resolve(**settings["compute"])
    model, trained = load_run(run, run_name), weights_of(MODELS / run_name)
    check_trained(run_name, run.model_dump(), trained["sha256"], parents_of(run, run_name))
    merge(model)
    engine = engine_for(model.to(compute.device), compute)
    tokens = wrapper(model, settings["max_tokens"])
    config = read_config(MODELS / run_name)
    with replaced_folder(RESULTS / run_name) as folder:
        found = {}
        for part in ("dev", "test"):  # a task may have no test file
            there = splits(run, [task for task in run.known if has_split(PREPARED, task, part)], part)
            with engine.inference():
                found[part] = evaluate_part(model, run.known, run.heads, there, tokens, part, folder)
        trained_as = {
            "parameters": config["parameters"],
            "checkpoint_bytes": (MODELS / run_name / WEIGHTS).stat().st_size,
            "training": config["training"],
        }
        atomic_json(folder / "metrics.json", {"run": run_name, **found, **trained_as})
        for file in ("history.csv", RECORD, *([CONFLICTS] if run.measure_conflicts else [])):
            shutil.copyfile(MODELS / run_name / file, folder / file)
        made_by = record("evaluate", run_name, parents=[trained], **compute.describe(), **engine.describe())
        write_record(folder / EVALUATION, made_by)
        seal(folder)
    shown = tracked(found["dev"], run.known.values())
    atomic_json(METRICS / f"{run_name}.json", shown)
    printed = {metric: "undefined" if value is None else f"{value:.3f}" for metric, value in shown.items()}
    print(f"{run_name} on dev: " + ", ".join(f"{metric} {value}" for metric, value in printed.items()))


if __name__ == "__main__":
    start(main)
