"""Calling the compiled kernels: which types and widths they take, tensors as pointers, dropout masks as random words."""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbert.fast.cpu import build
from mtbert.model.dropout import BLOCK, Dropout, threshold

LANES = 16  # widths that the kernels take are multiples of this
VARIANTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Mask(NamedTuple):
    """Which elements a dropout keeps: those whose random word is at least `threshold`; they are multiplied by `scale`.

    Attributes:
        words: int16, one for each element and some more, so that whole vectors can be read; None where nothing is dropped.
    """

    words: Tensor | None = None
    threshold: int = 0
    scale: float = 1.0


def mask(dropout: Dropout, count: int) -> Mask:
    """The mask that the plain dropout would draw now for `count` elements."""
    if not dropout.training or dropout.p == 0:
        return Mask()
    noise = dropout.noise
    first, blocks = noise.claim(count)
    words = torch.empty(blocks * BLOCK, dtype=torch.int16)
    build.library().random_words(noise.key.ctypes.data, first, blocks, words.data_ptr())
    return Mask(words, *threshold(dropout.p))


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel in the variant for `like`'s type; contiguous tensors go as pointers, sequences of them as arrays of pointers."""
    function = getattr(build.library(), f"{name}_{VARIANTS[like.dtype]}")
    function(*map(_argument, arguments))


def _argument(one: Any) -> Any:
    if isinstance(one, Tensor):
        assert one.is_contiguous()
        return one.data_ptr()
    return (ctypes.c_void_p * len(one))(*map(_argument, one)) if isinstance(one, list | tuple) else one
