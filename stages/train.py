"""train RUN: fine-tune a run's model (sections 4.3 and 4.4), resuming from the last checkpoint of an interrupted attempt."""

import os
import shutil
from functools import partial
from pathlib import Path

from mtbert.data.arrays import check_prepared
from mtbert.engines import engine_for
from mtbert.evaluation.development import development_metrics, watched
from mtbert.files import replaced_folder
from mtbert.pipeline.ahead import overall
from mtbert.pipeline.models import (
    load_start,
    losses_of,
    parents_of,
    recipe_of,
    save_trained,
    splits,
    weights_of,
    wrapper,
)
from mtbert.pipeline.paths import CONVERTED, MODELS, PLOTS, PREPARED, PRETRAINED, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import DATA, RECORD, record, write_log, write_record
from mtbert.pipeline.start import start
from mtbert.settings import Run
from mtbert.tasks.paper import CURVE
from mtbert.training.compute import resolve
from mtbert.training.fingerprint import fingerprint
from mtbert.training.log import LearningCurve, StepLog, write_history
from mtbert.training.loop import train
from mtbert.training.progress import TrainingProgress
from mtbert.training.work import checkpoint_log, only_writer, work_folder, work_root

LOCKS = Path(".mtbert/locks")
# Time between checkpoints. Results do not depend on it, so it is no setting in params.yaml.
CHECKPOINT_SECONDS = float(os.environ.get("MTBERT_CHECKPOINT_SECONDS", "60"))


def main(run_name: str) -> None:
    plan = planned("train", run_name)
    run, root = Run.model_validate(plan["settings"]["run"]), work_root(Path.cwd())
    confine(*DATA, PRETRAINED, CONVERTED / run_name, MODELS / run_name, PLOTS / f"{run_name}.csv", LOCKS)
    check_prepared(PREPARED, ["train", "dev"])
    compute = resolve(**plan["settings"]["compute"])
    engine = engine_for(load_start(run, run_name).to(compute.device), compute)
    tokens = wrapper(engine.model, plan["settings"]["max_tokens"])
    data, dev = splits(run, run.tasks, "train"), splits(run, run.known, "dev")
    curve = splits(run, [CURVE.name], "train")
    parents = [weights_of(folder) for folder in parents_of(run, run_name)]
    made_from = record("train", run_name, parents=parents, **compute.describe(), **engine.describe())
    with (
        only_writer(LOCKS / run_name, run_name),
        work_folder(root, run_name, fingerprint({"run": run_name, "plan": plan, **made_from}, DATA)) as work,
        TrainingProgress(run_name, overall=overall(run_name)) as progress,
        StepLog(work / "steps.csv", *checkpoint_log(work)) as steps,
    ):
        done = train(
            engine,
            data,
            losses_of(run),
            recipe_of(run),
            wrapper=tokens,
            evaluate=partial(
                development_metrics,
                tasks=run.known,
                objectives=run.heads,
                dev=dev,
                train=curve,
                wrapper=tokens,
                seed=run.seed,
                watched=watched(run.epoch_end, run.batch_size, len(run.known)),
            ),
            observers=(steps, progress, LearningCurve(PLOTS / f"{run_name}.csv")),
            work=work,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        with replaced_folder(MODELS / run_name) as folder:
            text = {key: plan["settings"][key] for key in ("max_tokens", "preprocess")}
            weights = save_trained(folder, run, engine.model, done, data, name=run_name, **text)
            shutil.copyfile(work / "steps.csv", folder / "steps.csv")
            write_record(folder / RECORD, {**made_from, "weights": weights})
        # DVC plots only files that are outputs themselves, not files in an output folder.
        write_history(PLOTS / f"{run_name}.csv", done.history)
        write_log(root, "train", run_name, weights, seconds=done.seconds, tokens_per_second=done.tokens / done.seconds)


if __name__ == "__main__":
    start(main)
