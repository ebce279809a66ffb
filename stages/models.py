"""From a run's settings to its model: built, adapted, and loaded strictly."""

from pathlib import Path
from typing import Any

import torch

from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.multitask import MultitaskModel
from mtbert.model.store import TOKENIZER, WEIGHTS, load_model, read_config
from mtbert.model.weights import check_tensors, for_pooling
from mtbert.params import Run
from mtbert.peft.convert import add_dora
from mtbert.seal import check_seal
from stages.common import CONVERTED, PREPARED, PRETRAINED


def start_of(run: Run, name: str) -> Path:
    """The folder of the weights that the run called `name` starts from."""
    return CONVERTED / name if run.adapter else PRETRAINED


def weights_of(folder: Path) -> dict[str, Any]:
    """A model's folder and the checksum of its weights, as a record names a parent."""
    return {"folder": str(folder), "sha256": read_config(folder)["sha256"]}


def build(run: Run, config: BertConfig) -> MultitaskModel:
    """The run's model with fresh heads, a function of the run's seed; the encoder's weights are still to be loaded."""
    torch.manual_seed(run.seed)
    with torch.device("meta"):
        encoder = BertEncoder(config, run.encoder_dropout)
    model = MultitaskModel(
        encoder,
        run.pooling,
        quora=getattr(run.quora, "features", None),
        sts=getattr(run.sts, "features", None),
        dropout=run.head_dropout,
    )
    encoder.to_empty(device="cpu")
    return model


def adapt(model: MultitaskModel, run: Run) -> None:
    """Swap the encoder's linear layers for the run's adapter."""
    assert run.adapter is not None
    add_dora(
        model,
        rank=run.adapter.rank,
        alpha=run.adapter.alpha,
        dropout=run.adapter.dropout,
        train_rest=run.adapter.train_rest,
        exact_norm=run.adapter.norm_gradient == "exact",
        seed=run.seed,
    )


def load_encoder(run: Run, folder: Path) -> MultitaskModel:
    """The run's model with fresh heads over the encoder in `folder` (the encoder stage's)."""
    tensors, config = load_model(folder)
    model = build(run, BertConfig(**config["encoder"]))
    _fill(model.encoder, for_pooling(tensors, run.pooling, str(folder / WEIGHTS)), folder)
    return model


def load_run(run: Run, folder: Path) -> MultitaskModel:
    """The run's whole model as the convert or train stage wrote it.

    Raises:
        MtbertError: the folder holds a model of other settings.
    """
    tensors, config = load_model(folder)
    if config["settings"] != run.model_dump():
        changed = [key for key, value in run.model_dump().items() if config["settings"].get(key) != value]
        raise MtbertError(
            f"{folder}: was made with other settings ({', '.join(changed)}); run `dvc repro` to make it anew"
        )
    model = build(run, BertConfig(**config["encoder"]))
    if run.adapter is not None:
        adapt(model, run)
    _fill(model, tensors, folder)
    return model


def wrapper(model: MultitaskModel, max_tokens: int) -> Wrapper:
    """What puts [CLS] and [SEP] around the prepared wordpieces, which are compared with their checksums first.

    Raises:
        MtbertError: a prepared file changed since it was written.
        MtbertError: sequences may become longer than the encoder has positions for.
    """
    positions = model.encoder.config.positions
    if max_tokens > positions:
        raise MtbertError(
            f"params.yaml: prepare.max_tokens is {max_tokens}, but the encoder has {positions} positions; lower it to that"
        )
    check_seal(PREPARED)
    return wrapper_for(PREPARED / TOKENIZER, max_tokens)


def _fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_tensors(tensors, shapes, str(folder / WEIGHTS))
    module.load_state_dict(tensors)
