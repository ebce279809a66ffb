"""Put adapters into a loaded model, choose what trains, save and load adapters, and merge them (section 4.5)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.model.dropout import Dropout
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.lora import LoraLinear
from mtbert.peft.registry import ADAPTERS
from mtbert.pretrained.checks import check_tensors


def convert(model: MultitaskModel, replace: Callable[[nn.Linear], nn.Module]) -> list[str]:
    """Replace every nn.Linear of the encoder, in place. Task heads stay: they are new, and all of their weights train.

    Returns:
        The names of the replaced layers.
    """
    linears = _linears(model)
    for name, linear in linears.items():
        _swap(model, name, replace(linear))
    return list(linears)


def add_adapter(
    model: MultitaskModel,
    method: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    train_rest: bool,
    seed: int,
    **own: Any,
) -> list[str]:
    """Replace the encoder's linear layers by adapted ones and freeze what does not train (section 4.5).

    The adapter's own parameters and the heads train; with `train_rest` also embeddings, norms and biases.

    Args:
        method: a key of `ADAPTERS`.
        rank, alpha, dropout: as for `LoraLinear`.
        seed: decides the initial A matrices.
        own: further settings of the method.

    Returns:
        The names of the adapted layers.

    Raises:
        MtbertError: the rank exceeds a layer's width. The message begins with "adapter.rank", the key in a run's
            settings.
    """
    widths = {name: min(linear.weight.shape) for name, linear in _linears(model).items()}
    narrowest = min(widths, key=widths.__getitem__)
    if rank > widths[narrowest]:
        raise MtbertError(
            f"adapter.rank is {rank}, but the smallest layer, {narrowest}, is {widths[narrowest]} wide, "
            f"which bounds the rank of its update; lower it to at most {widths[narrowest]}"
        )
    with torch.random.fork_rng(devices=[]):
        # Seeded apart from the heads: with the same seed, A would start as a copy of a head.
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        noise, layer = model.encoder.noise, ADAPTERS[method].layer()
        names = convert(model, lambda linear: layer(linear, rank, alpha, Dropout(dropout, noise), **own))
    if not train_rest:
        added = adapter_names(model)
        for name, parameter in model.encoder.named_parameters(prefix="encoder"):
            parameter.requires_grad_(name in added)
    return names


def adapter_names(model: nn.Module) -> set[str]:
    """The names of the parameters that `add_adapter` added to the model."""
    adapted = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))
    return {f"{name}.{part}" for name, module in adapted for part in module.added}


def adapter_state(model: MultitaskModel) -> dict[str, Tensor]:
    """The parameters that `add_adapter` added, by their names in the model's state dict."""
    added = adapter_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name in added}


def trained_state(model: MultitaskModel) -> dict[str, Tensor]:
    """The parameters that train, by their names in the model's state dict."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_adapter(model: MultitaskModel, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors from `adapter_state` into a model that has the adapter; all other weights stay.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: the names or shapes are not those of the model's adapted layers.
    """
    check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in adapter_state(model).items()}, source)
    model.load_state_dict(tensors, strict=False)


def merge(model: MultitaskModel) -> None:
    """Replace every adapted layer, in place, by a linear layer with its merged weight; a second call changes nothing."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            _swap(model, name, module.merged())


def count_parameters(model: MultitaskModel) -> dict[str, int | None]:
    """Numbers of parameters.

    Returns:
        `total`, without adapters; `trainable`; and `adapters_only`, of heads and adapters (None without an adapter).
    """
    parameters = dict(model.named_parameters())
    adapters = adapter_names(model)
    heads = sum(p.numel() for name, p in parameters.items() if name.startswith(("heads.", "pair_layer.")))
    return {
        # Adapters disappear by merging, so they don't count for the model's size.
        "total": sum(p.numel() for name, p in parameters.items() if name not in adapters),
        "trainable": sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
        "adapters_only": heads + sum(parameters[name].numel() for name in adapters) if adapters else None,
    }


def _linears(model: MultitaskModel) -> dict[str, nn.Linear]:
    modules = model.encoder.named_modules(prefix="encoder")
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def _swap(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
