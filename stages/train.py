"""train RUN: fine-tune one configuration (sections 4.3 and 4.4), resuming where an earlier try was stopped."""

import os
import shutil
from functools import partial
from pathlib import Path

from mtbert.data.arrays import Split, check_prepared, load_split
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for
from mtbert.evaluation.development import development_metrics
from mtbert.files import replaced_folder
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import count_parameters
from mtbert.pretrained.store import read_config, save_model
from mtbert.pretrained.weights import config_to_json
from mtbert.settings import Run
from mtbert.tasks.paper import CURVE
from mtbert.training.compute import resolve
from mtbert.training.engine import Engine
from mtbert.training.fingerprint import fingerprint
from mtbert.training.log import StepLog, write_history
from mtbert.training.loop import Progress, train
from mtbert.training.progress import TrainingProgress
from mtbert.training.recipe import Recipe
from mtbert.training.sampling import probabilities, sampler_exponent
from mtbert.training.work import checkpoint_log, only_writer, work_folder, work_root
from stages.ahead import overall
from stages.common import CONVERTED, MODELS, PLOTS, PREPARED, PRETRAINED, confine, start
from stages.models import load_start, losses_of, parents_of, weights_of, wrapper
from stages.planned import planned
from stages.provenance import DATA, RECORD, record, write_log, write_record

LOCKS = Path(".mtbert/locks")
# Time between checkpoints; results do not depend on it, so it is no setting.
CHECKPOINT_SECONDS = float(os.environ.get("MTBERT_CHECKPOINT_SECONDS", "60"))


def main(run_name: str) -> None:
    plan = planned("train", run_name)
    settings = plan["settings"]
    run = Run.model_validate(settings["run"])
    confine(*DATA, PRETRAINED, CONVERTED / run_name, MODELS / run_name, PLOTS / f"{run_name}.csv")
    compute = resolve(**settings["compute"])
    check_prepared(PREPARED, ["train", "dev"])
    model = load_start(run, run_name).to(compute.device)
    engine = engine_for(model, compute)
    data: dict[str, Split] = {task: load_split(PREPARED, run.known[task], "train") for task in run.tasks}
    tokens = wrapper(model, settings["max_tokens"])
    parents = [weights_of(folder) for folder in parents_of(run, run_name)]
    made_from = record("train", run_name, parents=parents, **compute.describe(), **engine.describe())
    root = work_root(Path.cwd())
    confine(LOCKS)

    with (
        only_writer(LOCKS / run_name, run_name),
        work_folder(root, run_name, fingerprint({"run": run_name, "plan": plan, **made_from}, DATA)) as work,
        TrainingProgress(run_name, overall=overall(run_name)) as progress,
    ):
        steps = StepLog(work / "steps.csv", *checkpoint_log(work))
        done = train(
            engine,
            data,
            losses_of(run),
            _recipe(run),
            wrapper=tokens,
            evaluate=partial(_evaluate, run, engine, tokens),
            observers=(steps, progress),
            work=work,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        steps.close()
        with replaced_folder(MODELS / run_name) as folder:
            _write(folder, run, model, done, work)
            weights = read_config(folder)["sha256"]
            write_record(folder / RECORD, {**made_from, "weights": weights})
        # DVC plots files that are outputs themselves, not files in a folder that is one.
        write_history(PLOTS / f"{run_name}.csv", done.history)
        seconds = done.seconds
        write_log(root, "train", run_name, weights, seconds=seconds, tokens_per_second=done.tokens / seconds)


def _recipe(run: Run) -> Recipe:
    adapter_rate = run.adapter.learning_rate if run.adapter else None
    return Recipe(run.sampler, run.epoch_end, run.epochs, run.batch_size, run.learning_rate, adapter_rate, run.seed)


def _evaluate(run: Run, engine: Engine, tokens: Wrapper, model: MultitaskModel) -> dict[str, float | None]:
    with engine.inference():
        return development_metrics(
            model,
            run.known,
            run.heads,
            {name: load_split(PREPARED, task, "dev") for name, task in run.known.items()},
            {name: load_split(PREPARED, task, "train") for name, task in run.known.items() if name == CURVE.name},
            tokens,
            seed=run.seed,
        )


def _write(folder: Path, run: Run, model: MultitaskModel, done: Progress, work: Path) -> None:
    sizes: dict[str, int] = {task: len(load_split(PREPARED, run.known[task], "train")) for task in run.tasks}
    exponent = sampler_exponent(run.sampler)
    config = {
        "encoder": config_to_json(model.encoder.config),
        "settings": run.model_dump(),
        "parameters": count_parameters(model),
        "training": {
            "tasks": run.tasks,
            "sampler": run.sampler,
            "epochs": run.epochs,
            "steps": done.history[-1]["step"],
            "batch_size": run.batch_size,
            "learning_rate": run.learning_rate,
            "adapter_learning_rate": run.adapter.learning_rate if run.adapter else None,
            "sizes": sizes,
            "batches": done.batches,
            "probabilities": None if exponent is None else probabilities(sizes, exponent),
            "tokens": done.tokens,
        },
    }
    save_model(folder, model.state_dict(), config)
    write_history(folder / "history.csv", done.history)
    shutil.copyfile(work / "steps.csv", folder / "steps.csv")


if __name__ == "__main__":
    start(main)
