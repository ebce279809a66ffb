"""A walk over a built, loaded model: swap the encoder's linear layers, say what trains, swap them back."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.model.dropout import Dropout
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.dora import DoraLinear
from mtbert.pretrained.checks import check_tensors


def convert(model: MultitaskModel, replace: Callable[[nn.Linear], nn.Module]) -> list[str]:
    """Replace every nn.Linear of the encoder, in place; the task heads are new and keep training in full.

    Returns:
        The names of the replaced layers.
    """
    linears = _linears(model)
    for name, linear in linears.items():
        _swap(model, name, replace(linear))
    return list(linears)


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

    Raises:
        MtbertError: the rank is above a layer's width. It begins with "adapter.rank", the key inside a run's settings.
    """
    widths = {name: min(linear.weight.shape) for name, linear in _linears(model).items()}
    narrowest = min(widths, key=widths.__getitem__)
    if rank > widths[narrowest]:
        raise MtbertError(
            f"adapter.rank is {rank}, but the smallest layer, {narrowest}, is {widths[narrowest]} wide, "
            f"and no update of it has a higher rank; lower it to at most {widths[narrowest]}"
        )
    with torch.random.fork_rng(devices=[]):
        # A stream of its own: with the heads' seed, A would start as a copy of a head.
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        noise = model.encoder.noise
        names = convert(model, lambda linear: DoraLinear(linear, rank, alpha, Dropout(dropout, noise), exact_norm))
    if not train_rest:
        for name, parameter in model.encoder.named_parameters():
            parameter.requires_grad_(name.endswith(ADAPTER_PARAMETERS))
    return names


def adapter_state(model: MultitaskModel) -> dict[str, Tensor]:
    """What `add_dora` added to the model: each layer's m, A and B, under their names in the model's state dict."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.endswith(ADAPTER_PARAMETERS)}


def load_adapter(model: MultitaskModel, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load what `adapter_state` gave into a model that `add_dora` was called on; all else in the model stays.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: the tensors are not exactly m, A and B of the model's layers, in their shapes.
    """
    check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in adapter_state(model).items()}, source)
    model.load_state_dict(tensors, strict=False)


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


def _linears(model: MultitaskModel) -> dict[str, nn.Linear]:
    modules = model.encoder.named_modules(prefix="encoder")
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def _swap(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
