"""A family of published encoders (BERT, ...): how to read its config.json and its tensors, and its special tokens."""

import re
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig


class SizeKey(NamedTuple):
    """A size in config.json: the family's key, and the smallest value that works."""

    key: str
    least: int


@dataclass(frozen=True)
class Family:
    """One family of encoders. Its files are those that transformers' `save_pretrained` writes.

    In a checkpoint with task heads, the encoder's tensor names begin with `prefix`. The names below are without prefix and old spellings.

    Attributes:
        name: what messages call it.
        model_type: its `model_type` in config.json, by which it is recognised.
        sizes: the field of `BertConfig` -> the key in config.json.
        defaults: values of the keys that old files lack.
        supported: keys of which `BertEncoder` computes one value only.
        prefix: of the encoder's tensors in checkpoints with task heads.
        spellings: old part of a tensor's name -> the present one.
        names: their tensor -> ours, outside the layers.
        layer: pattern of a layer's tensors; its groups are the layer's number, a key of `layer_names`, and weight or bias.
        layer_names: their module in a layer -> ours.
        buffers: tensors that hold no weights; they are left out.
        masked_head: their tensor of the head for masked tokens -> ours, in `MaskedTokenHead`.
        heads: tensors of other pretraining and task heads; they are left out with a note.
        special_tokens: the token that begins a sequence, and the token that ends each sentence in it.
    """

    name: str
    model_type: str
    sizes: Mapping[str, SizeKey]
    defaults: Mapping[str, Any]
    supported: Mapping[str, Any]
    prefix: str
    spellings: Mapping[str, str]
    names: Mapping[str, str]
    layer: re.Pattern[str]
    layer_names: Mapping[str, str]
    buffers: frozenset[str]
    masked_head: Mapping[str, str]
    heads: re.Pattern[str]
    special_tokens: tuple[str, str]

    @property
    def remedy(self) -> str:
        """The remedy for an unusable config.json."""
        return f"the file must be a {self.name} encoder's config.json"

    def read_config(self, values: Mapping[str, Any], path: Path) -> BertConfig:
        """The sizes in config.json; a note on stderr lists the defaults that were used.

        Args:
            values: the content of config.json.
            path: the file to name in an error.

        Raises:
            MtbertError: a value is missing, impossible or not supported.
        """
        if absent := {key: value for key, value in self.defaults.items() if key not in values}:
            used = ", ".join(f"{key} {value}" for key, value in absent.items())
            note(f"{path}: keys are missing; using {self.name}'s defaults: {used}")
        values = {**values, **absent}
        for key, wanted in self.supported.items():
            if values.get(key, wanted) != wanted:
                raise MtbertError(
                    f"{path}: {key} is {reprlib.repr(values[key])}, only {wanted!r} is supported; choose another encoder"
                )
        sizes = {field: self._size(values, size, path) for field, size in self.sizes.items()}
        if sizes["hidden"] % sizes["heads"]:
            raise MtbertError(
                f"{path}: {self.sizes['hidden'].key} is {reprlib.repr(sizes['hidden'])}, not a multiple of "
                f"{self.sizes['heads'].key} ({reprlib.repr(sizes['heads'])}); {self.remedy}"
            )
        eps = values.get("layer_norm_eps")
        if not isinstance(eps, float) or not 0 < eps < 1:
            raise MtbertError(
                f"{path}: layer_norm_eps is {reprlib.repr(eps)}, not a small positive number; {self.remedy}"
            )
        return BertConfig(**sizes, norm_eps=eps)

    def plain_name(self, published: str) -> str:
        """A tensor's name without the prefix and in its present spelling."""
        name = published.removeprefix(self.prefix)
        for old, new in self.spellings.items():
            name = name.replace(old, new)
        return name

    def our_name(self, plain: str) -> str | None:
        """Our name of an encoder's tensor; None if the family has no such tensor."""
        if plain in self.names:
            return self.names[plain]
        match = self.layer.fullmatch(plain)
        if match and match[2] in self.layer_names:
            return f"layers.{match[1]}.{self.layer_names[match[2]]}.{match[3]}"
        return None

    def published_name(self, ours: str) -> str:
        """The published name, without prefix, of a tensor that we call `ours`; the inverse of `our_name`."""
        for theirs, name in self.names.items():
            if name == ours:
                return theirs
        _, number, rest = ours.split(".", 2)
        module, _, kind = rest.rpartition(".")
        (theirs,) = (theirs for theirs, name in self.layer_names.items() if name == module)
        return f"encoder.layer.{number}.{theirs}.{kind}"

    def written_config(self, config: BertConfig) -> dict[str, Any]:
        """The family's config.json of an encoder of this size; `read_config` gives the size back."""
        sizes = {size.key: getattr(config, field) for field, size in self.sizes.items()}
        return {**self.defaults, **sizes, "layer_norm_eps": config.norm_eps}

    def _size(self, values: Mapping[str, Any], size: SizeKey, path: Path) -> int:
        if size.key not in values:
            raise MtbertError(f"{path}: {size.key} is missing; {self.remedy}")
        value = values[size.key]
        if type(value) is not int or value < size.least:  # bool is a subclass of int
            raise MtbertError(
                f"{path}: {size.key} is {reprlib.repr(value)}, not an integer of at least {size.least}; {self.remedy}"
            )
        return value


def note(text: str) -> None:
    """Print a note to stderr."""
    print(f"note: {text}", file=sys.stderr)
