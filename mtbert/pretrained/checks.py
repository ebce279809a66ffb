"""Checks of an encoder's or a model's tensors: names, shapes, types and values."""

import reprlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.pretrained.family import Family
from mtbert.pretrained.store import AGAIN

# A size -> the tensor and the axis that show it. The number of layers is counted; no tensor shows the number of heads.
MEASURED = {
    "vocabulary": ("embeddings.token.weight", 0),
    "positions": ("embeddings.position.weight", 0),
    "segments": ("embeddings.segment.weight", 0),
    "hidden": ("embeddings.token.weight", 1),
    "intermediate": ("layers.0.feed_forward.up.weight", 0),
}


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse tensors unless their names and shapes are the expected ones, their type is float32 and their values are finite.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: names the first faulty tensors.
    """
    for fault in _faults(tensors, shapes):
        raise MtbertError(f"{source}: {fault}; {AGAIN}")


def _faults(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    missing, unknown = shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys()
    names = [f"{fault}: {first_names(names)}" for fault, names in (("missing", missing), ("unknown", unknown)) if names]
    if names:
        yield f"tensors do not fit the model: {'; '.join(names)}"
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            yield f"{name} has shape {tuple(tensor.shape)}, expected {shape}"
        if tensor.dtype != torch.float32:
            yield f"{name} is {tensor.dtype}, expected float32"
        if not torch.isfinite(tensor).all():
            yield f"{name} holds NaN or infinity"


def check_sizes(config: BertConfig, tensors: Mapping[str, Tensor], source: str, family: Family) -> None:
    """Compare the sizes in config.json with the tensors, before a model of those sizes is made.

    Args:
        tensors: under our names.
        source: the file to name in an error.

    Raises:
        MtbertError: names the tensor and the key of config.json that disagree.
    """
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    measured = {"layers": (len(layers), f"layers found: {len(layers)}")}
    for size, (name, axis) in MEASURED.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape is None or len(shape) != 2:
            raise MtbertError(
                f"{source}: {name} {'is missing' if shape is None else f'has shape {shape}'}; is this a {family.name} encoder?"
            )
        measured[size] = shape[axis], f"{name} has shape {shape}"
    for size, (value, finding) in measured.items():
        if (stated := getattr(config, size)) != value:
            raise MtbertError(
                f"{source}: {finding}, but {family.sizes[size].key} in its config.json is {reprlib.repr(stated)}; "
                "use the config.json that comes with these weights"
            )


def first_names(names: Iterable[str]) -> str:
    """The first five names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
