"""Put adapters into a loaded model, choose what trains, save and load adapters, and merge them (section 4.5)."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.layer import AdaptedLinear
from mtbert.peft.registry import Adapter
from mtbert.pretrained.checks import check_tensors


def convert(model: MultitaskModel, replace: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace every nn.Linear of the encoder, in place. Task heads stay: they are new, and all of their weights train."""
    for name, linear in linears(model).items():
        swap(model, name, replace(linear))


def linears(model: MultitaskModel) -> dict[str, nn.Linear]:
    """The encoder's linear layers, by their names in the model."""
    modules = model.encoder.named_modules(prefix="encoder")
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def swap(model: MultitaskModel, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def check_rank(model: MultitaskModel, rank: int, key: str = "rank") -> None:
    """Check that no layer of the encoder is narrower than the rank of its update.

    Args:
        key: the rank's, for the error.

    Raises:
        MtbertError: one is.
    """
    widths = {name: min(linear.weight.shape) for name, linear in linears(model).items()}
    narrowest = min(widths, key=widths.__getitem__)
    if rank > widths[narrowest]:
        raise MtbertError(
            f"adapter.{key} is {rank}, but the smallest layer, {narrowest}, is {widths[narrowest]} wide, "
            f"which bounds the rank of its update; lower it to at most {widths[narrowest]}"
        )


def add_adapter(model: MultitaskModel, adapter: Adapter, seed: int, initialise: bool = True) -> None:
    """Put the adapter into the encoder and freeze what does not train (section 4.5).

    The adapter's own parameters and the heads train; with `adapter.train_rest` also embeddings, norms and biases.

    Args:
        seed: decides the adapter's initial values.
        initialise: whether to compute initial values from the encoder's weights; not needed if the adapter's are loaded next.

    Raises:
        MtbertError: a setting does not fit the encoder. The message begins with its key in a run's settings, such as
            "adapter.rank".
    """
    before = {name for name, _ in model.named_parameters()}
    weights = {f"{name}.weight" for name in linears(model)}
    with torch.random.fork_rng(devices=[]):
        # Seeded apart from the heads: with the same seed, A would start as a copy of a head.
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        adapter.insert(model)
    if initialise:
        adapter.initialise(model)
    parameters = dict(model.named_parameters())
    own = [name for name in parameters if name not in before or adapter.selects(name)]
    model.adapter_rates = {name: adapter.rate_factor(name) for name in own}
    for name, parameter in model.encoder.named_parameters(prefix="encoder"):
        if name not in model.adapter_rates and (name in weights or not adapter.train_rest):
            parameter.requires_grad_(False)


def adapter_state(model: MultitaskModel) -> dict[str, Tensor]:
    """The adapter's own parameters, by their names in the model's state dict."""
    own = model.adapter_rates or {}
    return {name: tensor for name, tensor in model.state_dict().items() if name in own}


def kept_state(model: MultitaskModel) -> dict[str, Tensor]:
    """The parameters that train, and the adapter's own ones that don't, by their names in the model's state dict.

    With the pretrained encoder they make up the model.
    """
    own = model.adapter_rates or {}
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad or name in own}


def load_adapter(model: MultitaskModel, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors from `adapter_state` into a model that has the adapter; all other weights stay.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: the names or shapes are not those of the model's adapter.
    """
    check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in adapter_state(model).items()}, source)
    model.load_state_dict(tensors, strict=False)


def merge(model: MultitaskModel) -> None:
    """Replace every adapted layer, in place, by a linear layer with its merged weight; a second call changes nothing."""
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear):
            swap(model, name, module.merged())
    left = dict(model.named_parameters())
    model.adapter_rates = {name: rate for name, rate in (model.adapter_rates or {}).items() if name in left} or None


def count_parameters(model: MultitaskModel) -> dict[str, int | None]:
    """Numbers of parameters.

    Returns:
        `total`, without adapters that can be merged; `trainable`; and `adapters_only`, those that train of heads and adapter
        (None without an adapter).
    """
    parameters = dict(model.named_parameters())
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, AdaptedLinear))
    # These disappear by merging, so they don't count for the model's size.
    merging = {f"{name}.{part}" for name, module in layers for part in module.added}
    trainable = {name: parameter.numel() for name, parameter in parameters.items() if parameter.requires_grad}
    own = model.adapter_rates
    return {
        "total": sum(p.numel() for name, p in parameters.items() if name not in merging),
        "trainable": sum(trainable.values()),
        "adapters_only": None
        if own is None
        else sum(
            count for name, count in trainable.items() if name in own or name.startswith(("heads.", "pair_layer."))
        ),
    }
