"""Resuming: a step number, the trained weights and the optimizer's state; everything else follows from (seed, step).

A work folder is named after the fingerprint of all that determines the run, so a checkpoint can never meet another
configuration, other data or other code.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, atomic_write_bytes, sha256_file
from mtbert.model.store import read_safetensors

LATEST = "latest.json"


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, progress: Mapping[str, Any]
) -> None:
    """Write the state after `step` steps, atomically: until latest.json names the new file, the old one counts.

    Args:
        progress: JSON values that the loop wants back (history, sums of the running epoch).
    """
    tensors = {f"model.{name}": parameter for name, parameter in _trained(model).items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in _trained(model).items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{key}": value for key, value in state.items()}
    path = folder / f"step-{step:08d}.safetensors"
    atomic_write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
    latest = {"file": path.name, "sha256": sha256_file(path), "step": step, "progress": dict(progress)}
    atomic_json(folder / LATEST, latest)
    for old in list(folder.iterdir()):  # earlier checkpoints, and the temporary files of writes that were killed
        if old != path and old.name.startswith((".", "step-")):
            old.unlink()


def checkpoint_step(folder: Path) -> int:
    """Steps done at the checkpoint in `folder`, 0 where there is none; `load_checkpoint` says what is wrong with it."""
    try:
        return int(json.loads((folder / LATEST).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Bring model and optimizer back to the last checkpoint.

    Returns:
        The number of steps done and the loop's progress, or None where there is no checkpoint.

    Raises:
        MtbertError: the checkpoint's bytes changed, or its tensors are not this model's.
    """
    if not (folder / LATEST).exists():
        return None
    remedy = f"remove {folder} to train from the beginning"
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        path, step, progress = folder / latest["file"], latest["step"], latest["progress"]
        intact = sha256_file(path) == latest["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise MtbertError(f"{folder / LATEST}: damaged checkpoint ({error}); {remedy}") from None
    if not intact:
        raise MtbertError(f"{path}: damaged checkpoint (sha256 differs); {remedy}")
    tensors = read_safetensors(path)
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            saved = tensors.pop(f"model.{name}", None)
            if saved is None or saved.shape != parameter.shape:  # copy_ alone would broadcast
                found = "absent" if saved is None else f"shape {tuple(saved.shape)}, expected {tuple(parameter.shape)}"
                raise MtbertError(f"{path}: {name} does not fit the model ({found}); {remedy}")
            parameter.copy_(saved)
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
            # A parameter that has had no gradient yet has no state either.
            if state:
                optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    if tensors:
        raise MtbertError(f"{path}: unknown tensors {', '.join(sorted(tensors)[:5])}; {remedy}")
    return step, progress


@contextmanager
def only_writer(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock` for the block, so that one process at a time trains a run; the kernel frees it with the process.

    Raises:
        MtbertError: another process holds it; names that process and what to do.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise MtbertError(
                f"{what} is being trained by process {holder} ({lock}); wait for it, or stop it with `kill {holder}`"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def remove_work(folder: Path) -> None:
    """Delete a finished run's work folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
