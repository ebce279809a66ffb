"""A walk over a built, loaded model: swap the encoder's linear layers, say what trains, swap them back."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from mtbert.model.dropout import Dropout
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.dora import DoraLinear


def convert(model: MultitaskModel, replace: Callable[[nn.Linear], nn.Module]) -> list[str]:
    """Replace every nn.Linear of the encoder, in place; the task heads are new and keep training in full.

    Returns:
        The names of the replaced layers.
    """
    names = [name for name, module in model.encoder.named_modules() if isinstance(module, nn.Linear)]
    for name in names:
        _swap(model.encoder, name, replace(model.encoder.get_submodule(name)))  # type: ignore[arg-type]
    return [f"encoder.{name}" for name in names]


def add_dora(
    model: MultitaskModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    train_rest: bool,
    exact_norm: bool,
    seed: int,
) -> list[str]:
    """Turn the encoder's linear layers into DoRA (equation 2) and freeze what does not train (section 4.5).

    Trainable afterwards: each layer's m, A, B and the heads; with `train_rest` also embeddings, norms and biases.
    """
    with torch.random.fork_rng(devices=[]):
        # A stream of its own: with the heads' seed, A would start as a copy of a head.
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        noise = model.encoder.noise
        names = convert(model, lambda linear: DoraLinear(linear, rank, alpha, Dropout(dropout, noise), exact_norm))
    if not train_rest:
        for name, parameter in model.encoder.named_parameters():
            parameter.requires_grad_(name.endswith(ADAPTER_PARAMETERS))
    return names


def merge(model: MultitaskModel) -> None:
    """Replace every DoRA layer by the plain linear layer that computes the same, in place; merging twice changes nothing."""
    for name, module in list(model.named_modules()):
        if isinstance(module, DoraLinear):
            _swap(model, name, module.merged())


def count_parameters(model: MultitaskModel) -> dict[str, int | None]:
    """Total, trainable, and, for an adapted model, what would train with all the rest frozen (heads, m, A and B)."""
    parameters = dict(model.named_parameters())
    adapters = [name for name in parameters if name.endswith(ADAPTER_PARAMETERS)]
    heads = sum(parameter.numel() for parameter in model.heads.parameters())
    return {
        # Adapters merge away: the model's own size is that of its plain weights.
        "total": sum(p.numel() for name, p in parameters.items() if name not in adapters),
        "trainable": sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
        "adapters_only": heads + sum(parameters[name].numel() for name in adapters) if adapters else None,
    }


ADAPTER_PARAMETERS = ("magnitude", "lora_a", "lora_b")


def _swap(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
