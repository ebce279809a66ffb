"""Pretrained weights into our names, strictly: every tensor accounted for, every shape and value checked."""

import json
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder, initialise

# Their name -> ours. A layer's number stands in both where {} does.
LAYER_NAMES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "feed_forward_norm",
}
TOP_NAMES = {
    "embeddings.word_embeddings.weight": "embeddings.token.weight",
    "embeddings.position_embeddings.weight": "embeddings.position.weight",
    "embeddings.token_type_embeddings.weight": "embeddings.segment.weight",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
}
# Our name of a size -> theirs, and its smallest value: pairs need two segments.
SIZES = {
    "vocabulary": ("vocab_size", 1),
    "positions": ("max_position_embeddings", 1),
    "segments": ("type_vocab_size", 2),
    "layers": ("num_hidden_layers", 1),
    "hidden": ("hidden_size", 1),
    "heads": ("num_attention_heads", 1),
    "intermediate": ("intermediate_size", 1),
}
# Our name of a size -> the tensor and the axis that tell it. The number of layers is counted; that of heads shows in no tensor.
MEASURED = {
    "vocabulary": ("embeddings.token.weight", 0),
    "positions": ("embeddings.position.weight", 0),
    "segments": ("embeddings.segment.weight", 0),
    "hidden": ("embeddings.token.weight", 1),
    "intermediate": ("layers.0.feed_forward.up.weight", 0),
}
# Keys with one value that we compute, and BERT's values of keys that old files lack.
ONLY = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
DEFAULTS = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": BertConfig().norm_eps}
REMEDY = "the file must be a BERT encoder's config.json"
POOLER = {"pooler.weight", "pooler.bias"}
# Heads of pretraining (also that of masked words alone), of sequences' and tokens' classes, and of answers in a text.
TASK_HEADS = re.compile(r"(cls|classifier|qa_outputs)\..+")
COUNTER = "embeddings.position_ids"  # a buffer of old checkpoints that counts from 0


def read_hf_config(path: Path) -> BertConfig:
    """A `config.json` of transformers' BertModel; a note on stderr says which of BERT's defaults were taken.

    Raises:
        MtbertError: not a BERT with absolute positions and the exact GELU, or a size is missing or impossible. Whether the sizes
            are those of the weights is for `from_hf` to say.
    """
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MtbertError(
            f"{path}: not found; an encoder's folder holds config.json, tokenizer.json, model.safetensors"
        ) from None
    except RecursionError:
        raise MtbertError(f"{path}: nested too deeply; {REMEDY}") from None
    except ValueError as error:
        # Of a number of 4,301 digits Python also says which of its own limits to raise.
        raise MtbertError(f"{path}: not valid JSON: {str(error).partition(';')[0]}; {REMEDY}") from None
    if not isinstance(theirs, dict):
        raise MtbertError(f"{path}: holds a {type(theirs).__name__}, not a JSON object; {REMEDY}")
    if taken := {key: value for key, value in DEFAULTS.items() if key not in theirs}:
        told = ", ".join(f"{key} {value}" for key, value in taken.items())
        _note(f"{path}: keys are missing; BERT's defaults are taken: {told}")
    theirs |= taken
    for key, wanted in ONLY.items():
        if theirs.get(key, wanted) != wanted:
            raise MtbertError(
                f"{path}: {key} is {reprlib.repr(theirs[key])}, only {wanted!r} is supported; choose a BERT encoder"
            )
    sizes = {ours: _size(theirs, key, path, least) for ours, (key, least) in SIZES.items()}
    if sizes["hidden"] % sizes["heads"]:
        raise MtbertError(
            f"{path}: hidden_size is {reprlib.repr(sizes['hidden'])}, not a multiple of num_attention_heads "
            f"({reprlib.repr(sizes['heads'])}); {REMEDY}"
        )
    eps = theirs["layer_norm_eps"]
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise MtbertError(f"{path}: layer_norm_eps is {reprlib.repr(eps)}, not a small positive number; {REMEDY}")
    return BertConfig(**sizes, norm_eps=eps)


def from_hf(tensors: Mapping[str, Tensor], config: BertConfig, source: str) -> dict[str, Tensor]:
    """Their tensors under our names, as float32; without a pooler where there is none. Notes on stderr say what is left out or missing.

    Args:
        tensors: as in the published `model.safetensors`, with or without the `bert.` prefix; old checkpoints call a
            norm's weight and bias gamma and beta.
        source: what to name in an error.

    Raises:
        MtbertError: a tensor is unknown, missing, of another shape, not floating point, or not finite; or a size in the config is
            not that of the tensors.
    """
    ours: dict[str, Tensor] = {}
    unknown, heads = [], []
    for theirs, tensor in tensors.items():
        name = theirs.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name == COUNTER:
            continue
        if TASK_HEADS.fullmatch(name):
            heads.append(theirs)
            continue
        mapped = _our_name(name)
        if mapped is None:
            unknown.append(theirs)
        elif mapped in ours:
            raise MtbertError(f"{source}: {theirs} stands in the file under two names; take an unmodified checkpoint")
        else:
            ours[mapped] = tensor.float() if tensor.is_floating_point() else tensor
    if unknown:
        raise MtbertError(f"{source}: unknown tensors: {_some(unknown)}; is this a BERT encoder?")
    _check_sizes(config, ours, source)
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in BertEncoder(config).state_dict().items()}
    if bare := not POOLER & ours.keys():
        expected = {name: shape for name, shape in expected.items() if name not in POOLER}
    check_tensors(ours, expected, source)
    if bare:
        _note(f"{source}: has no pooler; runs with pooling: mean or max do not need one, those with pooling: cls do")
    if heads:
        _note(f"{source}: left out, since they are heads of other tasks: {_some(heads)}")
    return ours


def for_pooling(tensors: Mapping[str, Tensor], pooling: str, source: str) -> dict[str, Tensor]:
    """An encoder's tensors, as `from_hf` gives them, without the pooler where pooling is not cls: that model has none.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: pooling is cls and there is no pooler. It begins with "pooling", the key inside a run's settings.
    """
    if pooling != "cls":
        return {name: tensor for name, tensor in tensors.items() if name not in POOLER}
    if not POOLER & tensors.keys():
        raise MtbertError(
            f"pooling is cls, but {source} has no pooler, the layer that [CLS] passes through then "
            "(an encoder further pretrained on masked words alone has none); set it to mean or max, or choose an encoder with a pooler"
        )
    return dict(tensors)


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse tensors whose names, shapes or types are not exactly the expected ones, or that are not finite.

    Raises:
        MtbertError: names the file and the first faulty tensors.
    """
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or extra:
        told = [f"missing: {', '.join(missing[:5])}"] * bool(missing) + [f"unknown: {', '.join(extra[:5])}"] * bool(
            extra
        )
        raise MtbertError(f"{source}: tensors do not fit the model: {'; '.join(told)}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise MtbertError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
        if tensor.dtype != torch.float32:
            raise MtbertError(f"{source}: {name} is {tensor.dtype}, expected float32")
        if not torch.isfinite(tensor).all():
            raise MtbertError(f"{source}: {name} holds NaN or infinity")


def random_weights(config: BertConfig, seed: int) -> dict[str, Tensor]:
    """An untrained encoder's weights, a pure function of size and seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertEncoder(config).apply(initialise).state_dict()


def parameter_count(config: BertConfig) -> int:
    """The number of weights of an encoder of this size, its pooler's included, without making it."""
    hidden, wide = config.hidden, config.intermediate
    embeddings = (config.vocabulary + config.positions + config.segments + 2) * hidden
    layer = 4 * (hidden + 1) * hidden + (hidden + 1) * wide + (wide + 1) * hidden + 4 * hidden
    return embeddings + config.layers * layer + (hidden + 1) * hidden


def config_to_json(config: BertConfig) -> dict[str, Any]:
    """The encoder's size as plain JSON values."""
    return asdict(config)


def _check_sizes(config: BertConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """Compare the config with the tensors, before anything is made in the config's sizes."""
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    found = {"layers": (len(layers), f"layers found: {len(layers)}")}
    for size, (name, axis) in MEASURED.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape is None or len(shape) != 2:
            raise MtbertError(
                f"{source}: {name} {'is missing' if shape is None else f'has shape {shape}'}; is this a BERT encoder?"
            )
        found[size] = shape[axis], f"{name} has shape {shape}"
    for size, (value, told) in found.items():
        if (said := getattr(config, size)) != value:
            raise MtbertError(
                f"{source}: {told}, but {SIZES[size][0]} in its config.json is {reprlib.repr(said)}; "
                "use the config.json that comes with these weights"
            )


def _our_name(name: str) -> str | None:
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    if match and match[2] in LAYER_NAMES:
        return f"layers.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"
    return None


def _size(config: Mapping[str, Any], key: str, path: Path, least: int) -> int:
    if key not in config:
        raise MtbertError(f"{path}: {key} is missing; {REMEDY}")
    value = config[key]
    if type(value) is not int or value < least:  # bool is an int too
        raise MtbertError(f"{path}: {key} is {reprlib.repr(value)}, not an integer of at least {least}; {REMEDY}")
    return value


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
