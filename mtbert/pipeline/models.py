"""Build, adapt, load and save a run's model from its settings."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mtbert.corpus.tokenizer import read_tokenizer
from mtbert.data.arrays import Split, load_split
from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text, sha256_file
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import HeadOverPairLayer, PairLayer, build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_adapter, count_parameters, kept_state, load_adapter
from mtbert.pipeline.card import CARD, card
from mtbert.pipeline.paths import CONVERTED, MODELS, PREPARED, PRETRAINED
from mtbert.pipeline.provenance import check_current
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.checks import check_tensors
from mtbert.pretrained.store import CONFIG, TOKENIZER, WEIGHTS, load_model, read_config, save_model
from mtbert.pretrained.weights import config_to_json, for_pooling
from mtbert.seal import remedy, stage_of
from mtbert.settings.run import Model, Run
from mtbert.tasks.task import Task
from mtbert.training.aggregation import packages_of
from mtbert.training.conflicts import CONFLICTS, write_conflicts
from mtbert.training.log import write_history
from mtbert.training.loop import Progress, kept_epoch
from mtbert.training.optimization import PAPER
from mtbert.training.recipe import Recipe
from mtbert.training.sampling import probabilities, sampler_exponent
from mtbert.training.step import Loss
from mtbert.training.task_losses import task_losses
from mtbert.training.uncertainty import UncertaintyWeights


def weights_of(folder: Path) -> dict[str, Any]:
    """A model's folder and the checksum of its weights, as records name a parent."""
    return {"folder": str(folder), "sha256": read_config(folder)["sha256"]}


def parents_of(run: Run, name: str) -> list[Path]:
    """The folders of the weights that a run's training starts from."""
    if run.start_run:
        return [MODELS / run.start_run]
    return [PRETRAINED, CONVERTED / name] if run.adapter else [PRETRAINED]


class _NoInit(TorchFunctionMode):
    """Skip weight initialisation in modules made inside the block; no random numbers are drawn."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def build(settings: Model, config: BertConfig) -> MultitaskModel:
    """The model with new heads, initialised from the run's seed. The encoder's weights are not initialised: load them next."""
    torch.manual_seed(settings.seed)
    with _NoInit():
        encoder = BertEncoder(config, settings.encoder_dropout)
    size = settings.pair_layer.size if settings.pair_layer else None
    dropout, noise = settings.head_dropout, encoder.noise
    heads = build_heads(settings.heads, settings.known, config.hidden, dropout, noise, size)
    pair_layer = None
    if size is not None:  # the settings have checked that its heads have the same features
        features = next(head.features for head in heads.values() if isinstance(head, HeadOverPairLayer))
        pair_layer = PairLayer(features, config.hidden, size, dropout, noise)
    return MultitaskModel(encoder, settings.pooling, heads, pair_layer)


def on_meta(settings: Model, config: BertConfig, where: str) -> MultitaskModel:
    """The model with its adapter on the meta device, where nothing is allocated or computed, to count its parameters.

    Args:
        where: the run's key in params.yaml, for errors.
    """
    with torch.device("meta"):
        model = build(settings, config)
        if settings.adapter:
            adapt(model, settings, where)
    return model


def trained_with_bert_base(settings: Mapping[str, Any]) -> int:
    """How many parameters a run with these settings trains if BERT-base, the paper's encoder, is its encoder."""
    trainable = count_parameters(on_meta(Run.model_validate(settings), BertConfig(), "runs"))["trainable"]
    assert trainable is not None
    return trainable


def losses_of(run: Run, uncertainty: UncertaintyWeights | None = None) -> dict[str, Loss]:
    """The loss of each head, by task; `uncertainty` are the weights that the run learns."""
    return task_losses(run.heads, run.known, r_drop=run.r_drop, weights=run.task_weights, uncertainty=uncertainty)


def uncertainty_of(run: Run) -> UncertaintyWeights | None:
    """The weights that the run learns; None if it learns none."""
    return UncertaintyWeights({name: run.known[name] for name in run.tasks}) if run.uncertainty else None


def packages_of_run(run: Run, where: str) -> dict[str, str]:
    """The versions of the packages that the run's aggregation takes from elsewhere.

    Args:
        where: the run's key in params.yaml, for errors.

    Raises:
        MtbertError: one is not installed.
    """
    try:
        return packages_of(run.aggregation or "mean")
    except MtbertError as error:
        raise MtbertError(f"params.yaml: {where}.{error}") from None


def adapt(model: MultitaskModel, settings: Model, where: str, initialise: bool = False) -> None:
    """Put the run's adapter into the encoder.

    Args:
        where: the run's key in params.yaml, for errors.
        initialise: as `add_adapter` takes it.
    """
    adapter = settings.adapter
    assert adapter is not None
    try:
        add_adapter(model, adapter, settings.seed, initialise)
    except MtbertError as error:
        raise MtbertError(f"params.yaml: {where}.{error}") from None


def load_encoder(settings: Model, where: str, folder: Path = PRETRAINED, advice: str = "") -> MultitaskModel:
    """The model with new heads and the encoder stage's weights.

    Args:
        where: the run's key in params.yaml, for errors.
        folder: where the encoder's weights are.
        advice: as `load_model` takes it.
    """
    tensors, config = load_model(folder, advice)
    try:
        tensors = for_pooling(tensors, settings.pooling, str(folder / WEIGHTS))
    except MtbertError as error:
        raise MtbertError(f"params.yaml: {where}.{error}") from None
    model = build(settings, BertConfig(**config["encoder"]))
    fill(model.encoder, tensors, folder)
    return model


def load_start(run: Run, name: str) -> MultitaskModel:
    """The model that training starts from: the pretrained encoder and what the convert stage added to it, or a trained run's weights
    and a new adapter.
    """
    where = f"runs.{name}"
    if run.start_run:
        check_current(run.start_run, f"{where}.adapter.start_from")
        folder = MODELS / run.start_run
        tensors, config = load_model(folder)
        model = build(run, BertConfig(**config["encoder"]))
        fill(model, tensors, folder)
        adapt(model, run, where, initialise=True)
        return model
    model = load_encoder(run, where)
    if run.adapter is not None:
        adapt(model, run, where)
        tensors, config = load_model(CONVERTED / name)
        _check_parent(config["parent"], CONVERTED / name)
        load_adapter(model, tensors, str(CONVERTED / name / WEIGHTS))
    return model


def load_run(run: Run, name: str) -> MultitaskModel:
    """The run's model, with the weights that the train stage wrote.

    Raises:
        MtbertError: the folder's model was trained with other settings.
    """
    folder = MODELS / name
    tensors, config = load_model(folder)
    before, now = config["settings"], run.model_dump()
    if before != now:
        changed = [key for key in now | before if before.get(key) != now.get(key)]
        raise MtbertError(
            f"{folder}: was trained with other settings ({', '.join(changed)}); run `dvc repro train@{name}` to train it again"
        )
    return assemble(run, folder, tensors, config)


def assemble(settings: Model, folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> MultitaskModel:
    """A trained model from its folder's tensors and config, and from its base if the folder holds only what was trained.

    Raises:
        MtbertError: the base is not beside the folder, or the tensors do not fit.
    """
    base, where = config["base_weights"], f"runs.{folder.name}"
    if base is None:
        model = build(settings, BertConfig(**config["encoder"]))
    else:
        model = load_encoder(settings, where, *_base(folder, base, config["base"]["name"]))
    if settings.adapter is not None:
        adapt(model, settings, where)
    fill(model, tensors, folder, kept_state(model) if base else None)
    return model


def _base(folder: Path, sha256: str, name: str) -> tuple[Path, str]:
    """The folder of the base's weights, beside the model's, and the remedy if it is damaged."""
    place = folder.resolve().parent / PRETRAINED.name
    remedy = f"copy {PRETRAINED} of the project that trained it to {place}"
    found = read_config(place, remedy)["sha256"] if (place / CONFIG).is_file() else None
    if found != sha256:
        what = "not found" if found is None else f"other weights, sha256 {found[:12]}…"
        raise MtbertError(
            f"{folder / WEIGHTS}: holds only the parameters that were trained; the others are those of {name} "
            f"(sha256 {sha256[:12]}…), expected in {place} ({what}); {remedy}"
        )
    return place, remedy


def wrapper(model: MultitaskModel, max_tokens: int) -> Wrapper:
    """The wrapper that puts [CLS] and [SEP] around prepared wordpieces.

    Raises:
        MtbertError: prepare.max_tokens exceeds the encoder's positions.
    """
    positions = model.encoder.config.positions
    if max_tokens > positions:
        raise MtbertError(
            f"params.yaml: prepare.max_tokens is {max_tokens}, but the encoder has {positions} positions; lower it to that"
        )
    return wrapper_for(PREPARED / TOKENIZER, max_tokens, BERT.special_tokens)


def mask_token() -> int:
    """The id of [MASK].

    Raises:
        MtbertError: the prepared tokenizer is missing or damaged, or has no such token.
    """
    path = PREPARED / TOKENIZER
    tokenizer = read_tokenizer(path, remedy(PREPARED), remedy(PREPARED, PREPARED))
    mask: int | None = tokenizer.token_to_id("[MASK]")
    if mask is None:
        raise MtbertError(f"{path}: has no [MASK], which further_pretraining needs; set further_pretraining to null")
    return mask


def _check_parent(parent: dict[str, Any], folder: Path) -> None:
    """Check that the adapter was made from these weights: its magnitudes fit no others, even of equal shape."""
    if weights_of(Path(parent["folder"])) != parent:
        again = f"run `dvc repro {stage_of(folder)}`, then the same command again"
        raise MtbertError(f"{folder}: was made from other weights of {parent['folder']}; {again}")


def fill(
    module: torch.nn.Module,
    tensors: dict[str, torch.Tensor],
    folder: Path,
    expected: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Load tensors that must be exactly the `expected` ones, by default all of the module's; `folder` holds them."""
    expected = module.state_dict() if expected is None else expected
    check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in expected.items()}, str(folder / WEIGHTS))
    module.load_state_dict(tensors, strict=False)


def splits(run: Run, tasks: Iterable[str], part: str) -> dict[str, Split]:
    """The prepared split of each of these tasks that the run has a head for."""
    return {name: load_split(PREPARED, run.known[name], part) for name in tasks if name in run.known}


def recipe_of(run: Run) -> Recipe:
    """How the run is trained."""
    adapter_rate = run.adapter.learning_rate if run.adapter else None
    return Recipe(
        run.sampler,
        run.epoch_end,
        run.epochs,
        run.batch_size,
        run.learning_rate,
        adapter_rate,
        run.seed,
        run.optimization or PAPER,
        run.passes,
        run.uncertainty.learning_rate if run.uncertainty else 0.0,
        run.aggregation or "mean",
        run.measure_conflicts,
    )


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

    Weights of the tasks that were learned are no part of the model: they are removed from it, and written into config.json.

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
        "encoder": config_to_json(model.encoder.config),
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
