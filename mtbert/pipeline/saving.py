"""Write a trained model: weights, config.json with all that prediction needs, history and model card."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtbert.data.arrays import Split
from mtbert.files import atomic_write_text, sha256_file
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import count_parameters, kept_state
from mtbert.pipeline.card import CARD, card
from mtbert.pipeline.paths import PREPARED, PRETRAINED
from mtbert.pretrained.store import TOKENIZER, read_config, save_model
from mtbert.settings.run import Run
from mtbert.tasks.task import Task
from mtbert.training.conflicts import CONFLICTS, write_conflicts
from mtbert.training.history import Progress, kept_epoch
from mtbert.training.log import write_history
from mtbert.training.sampling import probabilities, sampler_exponent
from mtbert.training.uncertainty import UncertaintyWeights


def save_trained(
    folder: Path,
    run: Run,
    model: MultitaskModel,
    done: Progress,
    data: Mapping[str, Split],
    *,
    name: str,
    max_tokens: int,
    preprocess: str,
    source: str,
) -> str:
    """Write a trained model with all that prediction needs, its history and its card; returns the checksum of its weights.

    Learned weights of the tasks' losses are not part of the model: they are removed from it and written into config.json.

    Args:
        data: the training splits.
        name: the run's.
        max_tokens, preprocess: as the data were prepared.
        source: where they came from, data.source of params.yaml.
    """
    sizes = {name: len(split) for name, split in data.items()}
    exponent, pretrained = sampler_exponent(run.sampler), read_config(PRETRAINED)
    training = {
        "data": source,
        "tasks": run.tasks,
        "sampler": run.sampler,
        "epochs": run.epochs,
        "steps": done.history[-1]["step"],
        "kept_epoch": kept_epoch(done.history),
        "batch_size": run.batch_size,
        "learning_rate": run.learning_rate,
        "adapter": run.adapter.title if run.adapter else None,
        "adapter_learning_rate": run.adapter.learning_rate if run.adapter else None,
        "sizes": sizes,
        "batches": done.batches,
        "exponent": exponent,
        "probabilities": None if exponent is None else probabilities(sizes, exponent),
        "tokens": sum(done.tokens.values()),
        "tokens_of_tasks": done.tokens,
    }
    if isinstance(model.uncertainty, UncertaintyWeights):
        training["log_variances"] = model.uncertainty.learned()
        model.uncertainty = None
    config = {
        "encoder": asdict(model.encoder.config),
        "settings": run.model_dump(),
        "base": pretrained["source"],
        "base_weights": pretrained["sha256"] if run.adapter and not run.start_run else None,
        "tasks": {task.name: described(task) for task in run.known.values()},
        "max_tokens": max_tokens,
        "preprocess": preprocess,
        "tokenizer": sha256_file(PREPARED / TOKENIZER),
        "parameters": count_parameters(model),
        "training": training,
    }
    save_model(folder, kept_state(model) if config["base_weights"] else model.state_dict(), config)
    shutil.copyfile(PREPARED / TOKENIZER, folder / TOKENIZER)
    atomic_write_text(folder / CARD, card(name, config))
    write_history(folder / "history.csv", done.history)
    if done.conflicts:
        write_conflicts(folder / CONFLICTS, done.conflicts)
    return str(read_config(folder)["sha256"])


def described(task: Task) -> dict[str, Any]:
    """A task as config.json has it: kind, sentence columns, and labels by name or the ends of the range."""
    ends = {"low": task.low, "high": task.high} if task.kind == "score" else {"labels": list(task.labels)}
    return {"kind": task.kind, "texts": list(task.texts), **ends}
