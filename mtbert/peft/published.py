"""Adapters in peft's format: its names for our parameters, and an encoder with such an adapter merged in.

The folder holds adapter_config.json, which names the base, and adapter_model.safetensors.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.files import sha256_file
from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.checks import check_tensors, first_names
from mtbert.pretrained.family import note
from mtbert.pretrained.source import MINILM_HUB, MINILM_NAME, Pretrained, expanded, pretrained
from mtbert.pretrained.store import read_safetensors

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of all tensors
# Our parameters of an adapted layer -> the end of peft's name.
PARTS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
BIAS = "base_layer.bias"  # of an adapted layer
# peft saves copies under such names beside `modules_to_save` if it saves all biases; it does not read them.
COPIES = (".modules_to_save.", ".original_module.")
# Settings that change what an adapter computes, beyond LoRA and DoRA.
UNSUPPORTED = (
    *("alora_invocation_tokens", "alpha_pattern", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication"),
    *("lora_bias", "megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices"),
    *("use_bdlora", "use_qalora", "velora_config"),
)
# Initialisations that leave the base's weights as they are.
INITIALISATIONS = (True, False, None, "gaussian", "orthogonal", "eva")


def encoder_from(source: str, **settings: Any) -> Pretrained:
    """As `mtbert.pretrained.source.pretrained`; a local folder may also hold a peft adapter, which is merged into its base.

    The checksum in `sha256` is then that of adapter_model.safetensors. The base is the folder that adapter_config.json names, MiniLM-L6 of
    the package by its name on the hub, or a hub's repository at the `revision` in adapter_config.json.

    Raises:
        MtbertError: as `pretrained`; or the base is not found, or the adapter is not a LoRA or DoRA adapter of its layers.
    """
    folder = expanded(str(settings.get("path"))) if source == "local" else None
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        return pretrained(source, **settings)
    config = _config(folder / ADAPTER_CONFIG)
    weights = folder / ADAPTER_WEIGHTS
    tensors = read_safetensors(weights)
    found, wanted = sha256_file(weights), settings.get("sha256")
    if wanted not in (None, found):
        raise MtbertError(
            f"{weights}: sha256 is {found}, expected {wanted}; fetch the file again or correct encoder.sha256"
        )
    base = _base(folder, config)
    merged = _merged(base.tensors, tensors, config, str(weights))
    source_of = {"name": folder.name, "sha256": found, "base": base.source}
    return Pretrained(merged, base.config, base.tokenizer, source_of)


def published_module(ours: str) -> str:
    """The published name of a layer of the encoder, such as our layers.0.attention.query."""
    return BERT.published_name(f"{ours}.weight").removesuffix(".weight")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); copy the adapter's folder again") from None
    if not isinstance(config, dict):
        raise MtbertError(f"{path}: not a JSON object; copy the adapter's folder again")
    merge_it = (
        "merge it with peft (merge_and_unload), save the encoder and its tokenizer, and set encoder.path to that folder"
    )
    if config.get("peft_type") != "LORA":
        raise MtbertError(
            f"{path}: peft_type is {config.get('peft_type')!r}, and only LORA (with DoRA) is read; {merge_it}"
        )
    if used := [key for key in UNSUPPORTED if config.get(key)]:
        raise MtbertError(f"{path}: uses {', '.join(used)}, which mtbert does not compute; {merge_it}")
    if config.get("init_lora_weights") not in INITIALISATIONS:
        what = f"init_lora_weights is {config['init_lora_weights']!r}, which changes the base's weights"
        raise MtbertError(f"{path}: {what}; {merge_it}")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise MtbertError(
            f"{path}: lora_alpha is {config.get('lora_alpha')!r}, not a number; copy the adapter's folder again"
        )
    return config


def _base(folder: Path, config: Mapping[str, Any]) -> Pretrained:
    name, revision = str(config.get("base_model_name_or_path") or ""), str(config.get("revision"))
    for path in (folder / name, expanded(name)):
        if name and path.is_dir():
            return pretrained("local", path=str(path))
    if name in (MINILM_HUB, MINILM_NAME):
        return pretrained("minilm")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return pretrained("hub", name=name, revision=revision)
    raise MtbertError(
        f"{folder / ADAPTER_CONFIG}: base_model_name_or_path is {name!r}, which is not a folder here, and revision is not a commit of "
        "40 hex digits; set base_model_name_or_path to the base's folder, or revision to the base's commit on the hub"
    )


def _merged(
    base: Mapping[str, Tensor], tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> dict[str, Tensor]:
    """The base's tensors with the adapter's updates and its other trained tensors, all under our names."""
    merged = dict(base)
    unknown: list[str] = []
    heads: list[str] = []
    adapted: dict[str, dict[str, Tensor]] = {}
    endings = {**{f".{theirs}": ours for ours, theirs in PARTS.items()}, ".lora_magnitude_vector.weight": "magnitude"}
    for published, tensor in tensors.items():
        if any(part in published for part in COPIES):
            continue
        plain = BERT.plain_name(published.removeprefix(PREFIX))
        ending = next((ending for ending in endings if plain.endswith(ending)), None)
        whole = f"{plain.removesuffix(ending)}.weight" if ending else plain.replace(f".{BIAS}", ".bias")
        name = BERT.our_name(whole) or ""
        if name in base and ending:
            adapted.setdefault(name, {})[endings[ending]] = tensor.float()
        elif name in base:
            check_tensors({published: tensor.float()}, {published: tuple(base[name].shape)}, source)
            merged[name] = tensor.float()
        else:
            (heads if BERT.heads.fullmatch(plain) else unknown).append(published)
    if unknown:
        raise MtbertError(
            f"{source}: unknown tensors: {first_names(unknown)}; is this an adapter of a {BERT.name} encoder?"
        )
    for name, parts in adapted.items():
        merged[name] = _updated(base[name], parts, config, f"{source}: {name}")
    if heads:
        note(f"{source}: ignored heads of other tasks: {first_names(heads)}")
    return merged


def _updated(weight: Tensor, parts: dict[str, Tensor], config: Mapping[str, Any], where: str) -> Tensor:
    layer_class = DoraLinear if config.get("use_dora") else LoraLinear
    rank = len(parts["lora_a"]) if "lora_a" in parts else 1
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    alpha = config["lora_alpha"] * (rank**0.5 if config.get("use_rslora") else 1)
    layer = layer_class(linear, rank, alpha)
    given = {"weight": weight, **parts}
    check_tensors(given, {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}, where)
    layer.load_state_dict(given)
    return layer.merged_weight().detach()
