"""An encoder's tensors under our names: translated from a published checkpoint, or random."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder, initialise
from mtbert.model.masked import MaskedTokenHead
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.checks import check_sizes, check_tensors, first_names
from mtbert.pretrained.family import Family, note

POOLER = {"pooler.weight", "pooler.bias"}


def from_hf(tensors: Mapping[str, Tensor], config: BertConfig, source: str, family: Family = BERT) -> dict[str, Tensor]:
    """A checkpoint's encoder under our names, as float32. Notes on stderr say which heads were left out and if there is no pooler.

    Args:
        tensors: as in the published `model.safetensors`, with or without the family's prefix.
        source: the file to name in an error.

    Raises:
        MtbertError: a tensor is unknown, missing, of another shape, not floating point or not finite, or a size in the config
            is not that of the tensors.
    """
    ours: dict[str, Tensor] = {}
    unknown, heads = [], []
    keeps_head = has_masked_head(tensors, family)
    for published, tensor in tensors.items():
        plain = family.plain_name(published)
        if plain in family.buffers:
            continue
        if family.heads.fullmatch(plain):
            if not keeps_head or plain not in family.masked_head:
                heads.append(published)
            continue
        name = family.our_name(plain)
        if name is None:
            unknown.append(published)
        elif name in ours:
            raise MtbertError(f"{source}: has {published} under two names; use an unmodified checkpoint")
        else:
            ours[name] = tensor.float() if tensor.is_floating_point() else tensor
    if unknown:
        raise MtbertError(f"{source}: unknown tensors: {first_names(unknown)}; is this a {family.name} encoder?")
    check_sizes(config, ours, source, family)
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in BertEncoder(config).state_dict().items()}
    if no_pooler := not POOLER & ours.keys():
        expected = {name: shape for name, shape in expected.items() if name not in POOLER}
    check_tensors(ours, expected, source)
    if no_pooler:
        note(f"{source}: has no pooler; runs with pooling: cls need one, runs with pooling: mean or max do not")
    if heads:
        note(f"{source}: ignored heads of other tasks: {first_names(heads)}")
    return ours


def masked_head_from_hf(
    tensors: Mapping[str, Tensor], config: BertConfig, source: str, family: Family = BERT
) -> dict[str, Tensor] | None:
    """A checkpoint's head for masked tokens, as `MaskedTokenHead` names its tensors, in float32; None if it has none.

    Args:
        tensors, source: as for `from_hf`.

    Raises:
        MtbertError: a tensor has another shape, or is not finite.
    """
    if not has_masked_head(tensors, family):
        return None
    plain = {family.plain_name(published): tensor for published, tensor in tensors.items()}
    ours = {name: plain[published].float() for published, name in family.masked_head.items()}
    with torch.device("meta"):
        expected = MaskedTokenHead(config, 0).state_dict()
    check_tensors(ours, {name: tuple(tensor.shape) for name, tensor in expected.items()}, source)
    return ours


def has_masked_head(tensors: Iterable[str], family: Family = BERT) -> bool:
    """Whether a checkpoint with tensors of these names has the whole head for masked tokens."""
    return family.masked_head.keys() <= set(map(family.plain_name, tensors))


def to_hf(tensors: Mapping[str, Tensor], family: Family = BERT) -> dict[str, Tensor]:
    """An encoder's tensors under the family's published names, without its prefix; the inverse of `from_hf`."""
    return {family.published_name(name): tensor for name, tensor in tensors.items()}


def for_pooling(tensors: Mapping[str, Tensor], pooling: str, source: str) -> dict[str, Tensor]:
    """An encoder's tensors as a model with this pooling needs them: without the pooler unless pooling is cls.

    Args:
        source: the file to name in an error.

    Raises:
        MtbertError: pooling is cls and there is no pooler. The message begins with "pooling", the key inside a run's settings.
    """
    if pooling != "cls":
        return {name: tensor for name, tensor in tensors.items() if name not in POOLER}
    if not POOLER & tensors.keys():
        raise MtbertError(
            f"pooling is cls, but {source} has no pooler, the layer that cls applies to the first token "
            "(checkpoints of masked language models lack it); set pooling to mean or max, or choose an encoder with a pooler"
        )
    return dict(tensors)


def random_weights(config: BertConfig, seed: int) -> dict[str, Tensor]:
    """An untrained encoder's weights, a pure function of size and seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertEncoder(config).apply(initialise).state_dict()


def parameter_count(config: BertConfig) -> int:
    """The number of parameters of an encoder of this size, its pooler's included, computed without making one."""
    hidden, intermediate = config.hidden, config.intermediate
    embeddings = (config.vocabulary + config.positions + config.segments + 2) * hidden
    layer = 4 * (hidden + 1) * hidden + (hidden + 1) * intermediate + (intermediate + 1) * hidden + 4 * hidden
    return embeddings + config.layers * layer + (hidden + 1) * hidden
