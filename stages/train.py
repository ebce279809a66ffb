"""train RUN: fine-tune one configuration (sections 4.3 and 4.4), resuming where an earlier try was killed."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mtbert.data.arrays import Split, load_split
from mtbert.data.tasks import TASKS
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.development import development_metrics
from mtbert.files import atomic_json, replaced_folder
from mtbert.model.multitask import MultitaskModel
from mtbert.model.store import read_config, save_model
from mtbert.model.weights import config_to_json
from mtbert.params import CosineEmbedding, Run, load_params
from mtbert.peft.convert import count_parameters
from mtbert.seal import sealed
from mtbert.training.checkpoint import checkpoint_step, only_writer, remove_work
from mtbert.training.compute import Compute, machine, resolve
from mtbert.training.fingerprint import fingerprint
from mtbert.training.log import Live, StepLog, write_history
from mtbert.training.loop import train
from mtbert.training.losses import cosine_embedding, paraphrase, sentiment, similarity_regression
from mtbert.training.progress import TrainingProgress
from mtbert.training.sampling import probabilities, sampler_exponent
from mtbert.training.step import Loss
from stages.common import MODELS, PREPARED, confine, start
from stages.models import load_encoder, load_run, start_of, weights_of, wrapper
from stages.provenance import RECORD, origin

WORK = Path(".mtbert")
CODE = [Path("mtbert") / part for part in ("data", "model", "peft", "evaluation", "training")]
CODE += [Path("stages/train.py"), Path("stages/models.py")]


def main(run_name: str) -> None:
    params = load_params()
    run = params.run(run_name)
    settings = params.compute
    compute = resolve(settings.device, settings.precision, settings.threads, settings.cuda_graphs)
    source = start_of(run, run_name)
    confine(PREPARED, source, MODELS / run_name)
    parent = weights_of(source)
    model = (load_run if run.adapter else load_encoder)(run, source).to(compute.device)
    data: dict[str, Split] = {task: load_split(PREPARED, task, "train") for task in run.tasks}
    tokens = wrapper(model, params.prepare.max_tokens)
    identity = {
        "run": run_name,
        "settings": run.model_dump(),
        "max_tokens": params.prepare.max_tokens,
        "compute": compute.describe(),
        "start": parent["sha256"],
    }
    work = WORK / fingerprint(identity, PREPARED, CODE)
    confine(work, WORK / "locks")
    made_from = origin(f"train {run_name}", run.model_dump(), PREPARED, parent=parent)

    with only_writer(WORK / "locks" / run_name, run_name), TrainingProgress(run_name) as progress:
        steps, live = StepLog(work / "steps.csv", checkpoint_step(work)), Live(work / "live")
        result = train(
            model,
            data,
            _losses(run),
            wrapper=tokens,
            compute=compute,
            sampler=run.sampler,
            epoch_end=run.epoch_end,
            epochs=run.epochs,
            batch_size=run.batch_size,
            learning_rate=run.learning_rate,
            seed=run.seed,
            evaluate=partial(_evaluate, run, compute, tokens),
            on_step=_both(steps.write, progress.step),
            on_epoch=_both(live.write, progress.epoch),
            work=work,
            checkpoint_seconds=settings.checkpoint_seconds,
        )
        steps.close()
        live.close()
        with replaced_folder(MODELS / run_name) as folder:
            _write(folder, run, model, result, work)
            record = {
                **made_from,
                "weights": read_config(folder)["sha256"],
                **compute.describe(),
                "machine": machine(),
                "seconds": result["seconds"],
                "tokens_per_second": result["tokens"] / result["seconds"],
                "finished": datetime.now(UTC).date().isoformat(),
            }
            atomic_json(folder / RECORD, sealed(record))
        remove_work(work)


def _both(first: Callable[[Any], None], second: Callable[[Any], None]) -> Callable[[Any], None]:
    def observe(value: Any) -> None:
        first(value)
        second(value)

    return observe


def _evaluate(run: Run, compute: Compute, tokens: Wrapper, model: MultitaskModel) -> dict[str, float | None]:
    with compute.autocast():
        return development_metrics(
            model,
            {task: load_split(PREPARED, task, "dev") for task in TASKS},
            load_split(PREPARED, "sst", "train"),
            tokens,
            sts_cosine=isinstance(run.sts, CosineEmbedding),
            clamp=getattr(run.sts, "clamp", True),
            seed=run.seed,
        )


def _losses(run: Run) -> dict[str, Loss]:
    sts: Loss = similarity_regression
    if isinstance(run.sts, CosineEmbedding):
        sts = partial(cosine_embedding, margin=run.sts.margin, threshold=run.sts.threshold)
    return {"sst": sentiment, "quora": paraphrase, "sts": sts}


def _write(folder: Path, run: Run, model: MultitaskModel, result: dict[str, Any], work: Path) -> None:
    sizes: dict[str, int] = {task: len(load_split(PREPARED, task, "train")) for task in run.tasks}
    exponent = sampler_exponent(run.sampler)
    config = {
        "encoder": config_to_json(model.encoder.config),
        "settings": run.model_dump(),
        "parameters": count_parameters(model),
        "training": {
            "tasks": run.tasks,
            "sampler": run.sampler,
            "epochs": run.epochs,
            "steps": result["steps"],
            "batch_size": run.batch_size,
            "learning_rate": run.learning_rate,
            "sizes": sizes,
            "batches": result["batches"],
            "probabilities": None if exponent is None else probabilities(sizes, exponent),
            "tokens": result["tokens"],
        },
    }
    save_model(folder, model.state_dict(), config)
    write_history(folder / "history.csv", result["history"])
    shutil.copyfile(work / "steps.csv", folder / "steps.csv")
    shutil.copytree(work / "live", folder / "live")


if __name__ == "__main__":
    start(main)
