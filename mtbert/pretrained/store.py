"""A model's folder on disk: model.safetensors, and config.json with its description and checksum.

safetensors has no checksum, and DVC does not verify read-only cache files, so we verify what we load.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, atomic_write_bytes, sha256_file
from mtbert.seal import remedy, sealed, unsealed

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def save_model(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write the tensors, then the config with their sha256, into an existing folder."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(folder / WEIGHTS, save(contiguous))  # safetensors' own error for a full disk is unclear
    atomic_json(folder / CONFIG, sealed({**config, "sha256": sha256_file(folder / WEIGHTS)}))


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model's folder.

    Returns:
        The tensors by name, and the config.

    Raises:
        MtbertError: a file is missing, unreadable or changed.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise MtbertError(f"{path}: not found; {remedy(folder)}")
    if sha256_file(path) != config["sha256"]:
        raise MtbertError(f"{path}: its bytes changed since it was written (sha256 differs); {remedy(folder, path)}")
    return read_safetensors(path), config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("sha256"), str):
            raise ValueError("no sha256 in it")
        config = unsealed(config)
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; {remedy(folder)}") from None
    except (ValueError, RecursionError) as error:
        raise MtbertError(f"{path}: damaged ({error}); {remedy(folder, path)}") from None
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        MtbertError: the file is missing or is not valid safetensors.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise MtbertError(f"{path}: not a readable safetensors file ({error})") from None
