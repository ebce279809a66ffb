"""Build, adapt, load and save a run's model from its settings."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.overrides import TorchFunctionMode

from mtbert.data.arrays import Split, load_split
from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import HeadOverPairLayer, PairLayer, build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_adapter, count_parameters, kept_state, load_adapter
from mtbert.pipeline.paths import CONVERTED, MODELS, PREPARED, PRETRAINED
from mtbert.pipeline.provenance import check_current, weights_of
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.checks import check_tensors
from mtbert.pretrained.store import CONFIG, TOKENIZER, WEIGHTS, load_model, read_config
from mtbert.pretrained.weights import for_pooling
from mtbert.seal import stage_of
from mtbert.settings.run import Model, Run


@contextmanager
def naming_key(where: str) -> Iterator[None]:
    """Let an error about one of a run's settings name its key in params.yaml; `where` is the run's."""
    try:
        yield
    except MtbertError as error:
        raise MtbertError(f"params.yaml: {where}.{error}") from None


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


def adapt(model: MultitaskModel, settings: Model, where: str, initialise: bool = False) -> None:
    """Put the run's adapter into the encoder.

    Args:
        where: the run's key in params.yaml, for errors.
        initialise: as `add_adapter` takes it.
    """
    assert settings.adapter is not None
    with naming_key(where):
        add_adapter(model, settings.adapter, settings.seed, initialise)


def load_encoder(settings: Model, where: str, folder: Path = PRETRAINED, advice: str = "") -> MultitaskModel:
    """The model with new heads and the encoder stage's weights.

    Args:
        where: the run's key in params.yaml, for errors.
        folder: where the encoder's weights are.
        advice: as `load_model` takes it.
    """
    tensors, config = load_model(folder, advice)
    with naming_key(where):
        tensors = for_pooling(tensors, settings.pooling, str(folder / WEIGHTS))
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
    """The id of [MASK] in the prepared tokenizer, which `wrapper` has found to be sound.

    Raises:
        MtbertError: there is no such token.
    """
    path = PREPARED / TOKENIZER
    mask: int | None = Tokenizer.from_file(str(path)).token_to_id("[MASK]")
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
