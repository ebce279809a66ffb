"""train RUN: fine-tune a run's model (sections 4.3 and 4.4), resuming from the last checkpoint of an interrupted attempt.

`torchrun --nproc-per-node N -m stages.train RUN` trains it by N processes together (docs/scale.md).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mtbert.data.arrays import check_prepared
from mtbert.engines import engine_for
from mtbert.evaluation.development import development_metrics
from mtbert.evaluation.watched import watched
from mtbert.files import replaced_folder
from mtbert.pipeline.ahead import overall
from mtbert.pipeline.models import load_start, parents_of, splits, wrapper
from mtbert.pipeline.paths import CONVERTED, MODELS, PLOTS, PREPARED, PRETRAINED, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import DATA, RECORD, record, weights_of, write_log, write_record
from mtbert.pipeline.saving import save_trained
from mtbert.pipeline.start import start
from mtbert.pipeline.training import (
    check_processes,
    losses_of,
    packages_of_run,
    pretrained_further,
    recipe_of,
    take_held_out,
    uncertainty_of,
)
from mtbert.pretrained.store import read_config
from mtbert.settings.run import Run
from mtbert.tasks.correlation import Correlated
from mtbert.tasks.paper import CURVE
from mtbert.training.compute import MAY_DIFFER, Compute, peak_memory, resolve
from mtbert.training.distributed import Group, joined, placed
from mtbert.training.fingerprint import fingerprint
from mtbert.training.further import write_losses
from mtbert.training.log import LearningCurve, Observer, StepLog, write_history
from mtbert.training.loop import Training
from mtbert.training.progress import TrainingProgress
from mtbert.training.score_line import fit_line
from mtbert.training.work import checkpoint_log, only_writer, work_folder, work_root

LOCKS = Path(".mtbert/locks")
# Time between checkpoints. Results do not depend on it, so it is no setting in params.yaml.
CHECKPOINT_SECONDS = float(os.environ.get("MTBERT_CHECKPOINT_SECONDS", "60"))


def main(run_name: str) -> None:
    plan = planned("train", run_name)
    compute = placed(resolve(**plan["settings"]["compute"]))
    with joined(compute) as group:
        train_run(run_name, plan, compute, group)


def train_run(run_name: str, plan: dict[str, Any], compute: Compute, group: Group) -> None:
    """Train a run as one of the group's processes; the first one writes all files."""
    run, root = Run.model_validate(plan["settings"]["run"]), work_root(Path.cwd())
    check_processes(run, run_name, group.size)
    parents = parents_of(run, run_name)
    confine(*DATA, PRETRAINED, CONVERTED / run_name, *parents, MODELS / run_name, PLOTS / f"{run_name}.csv", LOCKS)
    check_prepared(PREPARED, ["train", "dev"])
    model = load_start(run, run_name)
    model.uncertainty = uncertainty = uncertainty_of(run)
    engine = engine_for(model.to(compute.device), compute, quiet=not group.first)
    tokens = wrapper(engine.model, plan["settings"]["max_tokens"])
    data, dev = splits(run, run.tasks, "train"), splits(run, run.known, "dev")
    held_out = take_held_out(run, run_name, data)
    curve = {CURVE.name: data[CURVE.name]} if CURVE.name in data else splits(run, [CURVE.name], "train")
    described = {**compute.describe(), **engine.describe(), **packages_of_run(run, f"runs.{run_name}")}
    if run.further_pretraining:
        described["masked_head"] = read_config(PRETRAINED).get("masked_head")
    made_from = record("train", run_name, parents=list(map(weights_of, parents)), **described)
    group.check_same("start", made_from, "use the same checkout, data, packages and devices on every machine")
    with ExitStack() as writing:
        work, observers = (
            writing.enter_context(_writing(root, run_name, plan, made_from)) if group.first else (root, ())
        )
        work = Path(group.of_first(str(work)))
        further = pretrained_further(run, engine, data.values(), tokens, work, observers, CHECKPOINT_SECONDS)
        done = Training(
            engine,
            data,
            losses_of(run, uncertainty),
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
                held_out=held_out,
            ),
            observers=observers,
            work=work,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            group=group,
        ).run()
        if not group.first:
            return
        for task, split in data.items():
            if isinstance(run.heads[task], Correlated):
                fit_line(engine, task, split, tokens, run.seed)
        with replaced_folder(MODELS / run_name) as folder:
            text = {key: plan["settings"][key] for key in ("max_tokens", "preprocess", "source")}
            weights = save_trained(folder, run, engine.model, done, data, name=run_name, **text)
            shutil.copyfile(work / "steps.csv", folder / "steps.csv")
            if further:
                write_losses(folder / "further.csv", further)
            processes = {} if done.processes == [1] else {"processes": done.processes}
            write_record(folder / RECORD, {**made_from, **processes, "weights": weights})
        # DVC plots only files that are outputs themselves, not files in an output folder.
        write_history(PLOTS / f"{run_name}.csv", done.history)
        speed = sum(done.tokens.values()) / done.seconds
        main_memory, gpu_memory = peak_memory(compute.device)
        measured = {"seconds": done.seconds, "tokens_per_second": speed, "peak_bytes": gpu_memory or main_memory}
        write_log(root, "train", run_name, weights, **measured)


@contextmanager
def _writing(
    root: Path, run_name: str, plan: dict[str, Any], made_from: dict[str, Any]
) -> Iterator[tuple[Path, tuple[Observer, ...]]]:
    """Hold the run's lock; yield the folder of its checkpoints, and what logs and shows its steps."""
    identity = {key: value for key, value in made_from.items() if key not in MAY_DIFFER}
    with (
        only_writer(LOCKS / run_name, run_name),
        work_folder(root, run_name, fingerprint({"run": run_name, "plan": plan, **identity}, DATA)) as work,
        TrainingProgress(run_name, overall=overall(run_name) if "DVC_STAGE" in os.environ else None) as progress,
        StepLog(work / "steps.csv", *checkpoint_log(work)) as steps,
    ):
        yield work, (steps, progress, LearningCurve(PLOTS / f"{run_name}.csv"))


if __name__ == "__main__":
    start(main, several=True)
