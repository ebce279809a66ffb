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
AGAIN = "download or copy the file again"
MASKED_HEAD = "masked_head.safetensors"  # beside an encoder that was published with one


def save_model(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write the tensors, then the config with their sha256, into an existing folder."""
    _write(folder / WEIGHTS, tensors)
    atomic_json(folder / CONFIG, sealed({**config, "sha256": sha256_file(folder / WEIGHTS)}))


def save_masked_head(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write the head for masked tokens beside an encoder; returns the entry of the encoder's config that names it."""
    _write(folder / MASKED_HEAD, tensors)
    return {"masked_head": sha256_file(folder / MASKED_HEAD)}


def load_masked_head(folder: Path) -> dict[str, Tensor] | None:
    """The head for masked tokens beside an encoder, None if it was published without one.

    Raises:
        MtbertError: as `load_model`.
    """
    expected, path = read_config(folder).get("masked_head"), folder / MASKED_HEAD
    if expected is None:
        return None
    if not path.is_file() or sha256_file(path) != expected:
        raise MtbertError(f"{path}: missing or changed since it was written (sha256 differs); {remedy(folder, path)}")
    return read_safetensors(path)


def load_model(folder: Path, advice: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model's folder.

    Args:
        advice: the remedy that errors name; by default to run the stage that writes the folder.

    Returns:
        The tensors by name, and the config.

    Raises:
        MtbertError: a file is missing, unreadable or changed.
    """
    config = read_config(folder, advice)
    path = folder / WEIGHTS
    if not path.is_file():
        # `mtbert take` may have brought the rest of the folder, which DVC then calls up to date.
        raise MtbertError(f"{path}: not found; {advice or remedy(folder, path)}")
    if sha256_file(path) != config["sha256"]:
        what = "its bytes changed since it was written (sha256 differs)"
        raise MtbertError(f"{path}: {what}; {advice or remedy(folder, path)}")
    return read_safetensors(path), config


def read_config(folder: Path, advice: str = "") -> dict[str, Any]:
    """The config.json of a model's folder.

    Args:
        advice: as `load_model` takes it.

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
        raise MtbertError(f"{path}: not found; {advice or remedy(folder)}") from None
    except (ValueError, RecursionError) as error:
        raise MtbertError(f"{path}: damaged ({error}); {advice or remedy(folder, path)}") from None
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        MtbertError: the file is missing or is not valid safetensors.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; {AGAIN}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise MtbertError(f"{path}: not a readable safetensors file ({error}); {AGAIN}") from None


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(contiguous))  # safetensors' own error for a full disk is unclear
