"""Call the compiled kernels: tensors are passed as pointers, dropout masks as random words."""

import ctypes
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.fast.cpu import build
from mtbert.model.dropout import BLOCK, Dropout, threshold

LANES = 16  # kernels need widths that are multiples of this
VARIANTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Mask(NamedTuple):
    """A dropout mask: elements whose random word is at least `threshold` are kept and multiplied by `scale`.

    Attributes:
        words: int16, one for each element and some more, so that whole vectors can be read; None without dropout.
    """

    words: Tensor | None = None
    threshold: int = 0
    scale: float = 1.0


def mask(dropout: Dropout, count: int, rows: int = 0) -> Mask:
    """The mask that `Dropout` itself would draw next for `count` elements, in `rows` rows if that is its unit."""
    if not dropout.training or dropout.p == 0:
        return Mask()
    return Mask(dropout.noise.words(count, dropout.spans(rows), _random_words), *threshold(dropout.p))


def _random_words(key: np.ndarray, first: int, blocks: int) -> Tensor:
    words = torch.empty(blocks * BLOCK, dtype=torch.int16)
    build.library().random_words(key.ctypes.data, first, blocks, words.data_ptr())
    return words


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel's variant for `like`'s type; tensors must be contiguous, and sequences of them become arrays of pointers."""
    function = getattr(build.library(), f"{name}_{VARIANTS[like.dtype]}")
    function(*map(_argument, arguments))


def _argument(one: Any) -> Any:
    if isinstance(one, Tensor):
        assert one.is_contiguous()
        return one.data_ptr()
    return (ctypes.c_void_p * len(one))(*map(_argument, one)) if isinstance(one, list | tuple) else one
