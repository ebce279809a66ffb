"""Checkpoints: a step number, the trained weights and the optimizer's state. Everything else follows from (seed, step).

A work folder is named by the fingerprint of all that determines the run, so a checkpoint is never loaded into a run of
other settings, data or code.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, atomic_write_bytes, sha256_file
from mtbert.pretrained.store import read_safetensors
from mtbert.seal import sealed, unsealed
from mtbert.training.average import KEY
from mtbert.training.work import LATEST


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    progress: Mapping[str, Any],
    best: Mapping[str, Tensor] | None = None,
    section: str = "",
) -> None:
    """Write the state after `step` steps, atomically: the old checkpoint is valid until latest.json names the new file.

    Args:
        progress: the loop's own state as JSON values (history, sums of the running epoch).
        best: the trained weights of the best epoch so far, if epochs are compared.
        section: as for `check_finite`.

    Raises:
        MtbertError: a weight or a moment is not finite; the previous checkpoint is kept.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": parameter for name, parameter in trained(model).items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in trained(model).items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{key}": value for key, value in state.items()}
    tensors |= {f"best.{name}": value for name, value in (best or {}).items()}
    check_finite(step, tensors, section)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    # The same step may be saved twice with other weights of the best epoch, so the name has the checksum too.
    path = folder / f"step-{step:08d}-{digest[:8]}.safetensors"
    atomic_write_bytes(path, data)
    latest = {"file": path.name, "sha256": digest, "step": step, "progress": dict(progress)}
    atomic_json(folder / LATEST, sealed(latest))
    for old in list(folder.iterdir()):  # earlier checkpoints, and the temporary files of writes that were killed
        if old != path and old.name.startswith((".", "step-")):
            old.unlink()


def check_finite(step: int, tensors: Mapping[str, Tensor], section: str = "") -> None:
    """Check weights and moments: a finite loss can have an infinite gradient.

    Raises:
        MtbertError: names the first tensor with a NaN or an infinity, and the rates to lower, the run's or that of its `section`.
    """
    name = _not_finite(tensors)
    if name is not None:
        # A run may have further rates, for its adapter or heads.
        rates = f"{section}learning_rate" if section else "learning rates"
        raise MtbertError(
            f"step {step}: {name} holds NaN or infinity; lower this run's {rates}, or set compute.precision: fp32"
        )


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any], dict[str, Tensor]] | None:
    """Restore model and optimizer from the last checkpoint.

    Returns:
        The number of steps done, the loop's progress and the best epoch's weights, or None if there is no checkpoint.

    Raises:
        MtbertError: the checkpoint is damaged, or its tensors do not fit the model.
    """
    if not (folder / LATEST).exists():
        return None
    remedy = f"remove {folder} to train from the beginning"
    try:
        latest = unsealed(json.loads((folder / LATEST).read_text(encoding="utf-8")))
        path, step, progress = folder / latest["file"], latest["step"], latest["progress"]
        intact = sha256_file(path) == latest["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise MtbertError(f"{folder / LATEST}: damaged checkpoint ({error}); {remedy}") from None
    if not intact:
        raise MtbertError(f"{path}: damaged checkpoint (sha256 differs); {remedy}")
    tensors = read_safetensors(path)
    fault = _misfit(tensors, trained(model))
    if fault:
        raise MtbertError(f"{path}: {fault}; {remedy}")
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(tensors.pop(f"model.{name}"))
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
            # A parameter without a gradient so far has no state.
            if state:
                optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    return step, progress, best


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _misfit(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> str:
    """Why the checkpoint's tensors do not fit the model; empty if they do."""
    for name, parameter in parameters.items():
        saved = tensors.get(f"model.{name}")
        if saved is None:
            return f"{name} does not fit the model (absent)"
        states = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] == f"optimizer.{name}"}
        parts = {key.rpartition(".")[2] for key in states} - {KEY}
        if states and parts != {"step", "exp_avg", "exp_avg_sq"}:
            return f"the optimizer's state of {name} is incomplete or unknown ({', '.join(sorted(states))})"
        kept = {key: tensors[key] for key in [f"best.{name}"] if key in tensors}
        for key, tensor in {name: saved, **states, **kept}.items():
            shape = () if key.endswith(".step") and key in states else tuple(parameter.shape)
            if tuple(tensor.shape) != shape:  # copy_ alone would broadcast
                return f"{key} does not fit the model (shape {tuple(tensor.shape)}, expected {shape})"
            if tensor.dtype != parameter.dtype:
                return f"{key} does not fit the model ({tensor.dtype}, expected {parameter.dtype})"
    known = {f"{part}.{name}" for name in parameters for part in ("model", "optimizer", "best")}
    unknown = [key for key in sorted(tensors) if key not in known and key.rpartition(".")[0] not in known]
    if unknown:
        return f"unknown tensors {', '.join(unknown[:5])}"
    damaged = _not_finite(tensors)
    return "" if damaged is None else f"{damaged} holds NaN or infinity"


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
