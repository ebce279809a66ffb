"""Pretrained weights into our names, strictly: every tensor accounted for, every shape and value checked."""

import json
import re
from collections.abc import Mapping
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
REMEDY = "the file must be a BERT encoder's config.json"
# In published checkpoints, and of no use here: the pretraining heads and a buffer that counts from 0.
UNUSED = re.compile(r"cls\.(predictions|seq_relationship)\..*|embeddings\.position_ids")


def read_hf_config(path: Path) -> BertConfig:
    """A `config.json` of transformers' BertModel.

    Raises:
        MtbertError: not a BERT with absolute positions and the exact GELU, or a size is missing or impossible.
    """
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MtbertError(
            f"{path}: not found; an encoder's folder holds config.json, tokenizer.json, model.safetensors"
        ) from None
    except ValueError as error:
        raise MtbertError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(theirs, dict):
        raise MtbertError(f"{path}: holds a {type(theirs).__name__}, not a JSON object; {REMEDY}")
    for key, wanted, default in (
        ("model_type", "bert", None),
        ("hidden_act", "gelu", "gelu"),
        ("position_embedding_type", "absolute", "absolute"),
    ):
        if theirs.get(key, default) != wanted:
            raise MtbertError(
                f"{path}: {key} is {theirs.get(key)!r}, only {wanted!r} is supported; choose a BERT encoder"
            )
    sizes = {ours: _size(theirs, key, path, least) for ours, (key, least) in SIZES.items()}
    if sizes["hidden"] % sizes["heads"]:
        raise MtbertError(
            f"{path}: hidden_size is {sizes['hidden']}, not a multiple of num_attention_heads ({sizes['heads']}); {REMEDY}"
        )
    eps = _value(theirs, "layer_norm_eps", path)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise MtbertError(f"{path}: layer_norm_eps is {eps!r}, not a small positive number; {REMEDY}")
    return BertConfig(**sizes, norm_eps=eps)


def from_hf(tensors: Mapping[str, Tensor], config: BertConfig, source: str) -> dict[str, Tensor]:
    """Their tensors under our names, as float32.

    Args:
        tensors: as in the published `model.safetensors`, with or without the `bert.` prefix; old checkpoints call a
            norm's weight and bias gamma and beta.
        source: what to name in an error.

    Raises:
        MtbertError: a tensor is unknown, missing, of another shape, not floating point, or not finite.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for theirs, tensor in tensors.items():
        name = theirs.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if UNUSED.fullmatch(name):
            continue
        mapped = _our_name(name)
        if mapped is None:
            unknown.append(theirs)
        elif mapped in ours:
            raise MtbertError(f"{source}: {theirs} stands in the file under two names; take an unmodified checkpoint")
        else:
            ours[mapped] = tensor.float() if tensor.is_floating_point() else tensor
    if unknown:
        raise MtbertError(f"{source}: unknown tensors: {', '.join(sorted(unknown))}; is this a BERT encoder?")
    with torch.device("meta"):
        expected = BertEncoder(config).state_dict()
    check_tensors(ours, {name: tuple(tensor.shape) for name, tensor in expected.items()}, source)
    return ours


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


def config_to_json(config: BertConfig) -> dict[str, Any]:
    """The encoder's size as plain JSON values."""
    return asdict(config)


def _our_name(name: str) -> str | None:
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    if match and match[2] in LAYER_NAMES:
        return f"layers.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"
    return None


def _value(config: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in config:
        raise MtbertError(f"{path}: {key} is missing; {REMEDY}")
    return config[key]


def _size(config: Mapping[str, Any], key: str, path: Path, least: int) -> int:
    value = _value(config, key, path)
    if type(value) is not int or value < least:  # bool is an int too
        raise MtbertError(f"{path}: {key} is {value!r}, not an integer of at least {least}; {REMEDY}")
    return value
