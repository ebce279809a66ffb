"""Tensors must fit the model in name, shape, type and value."""

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.pretrained.checks import check_tensors


def test_only_tensors_that_fit_are_accepted() -> None:
    shapes = {"a": (2,), "b": (1, 3)}
    good = {"a": torch.zeros(2), "b": torch.zeros(1, 3)}
    check_tensors(good, shapes, "file")
    for bad, message in (
        ({"a": torch.zeros(2)}, "file: .*missing: b"),
        ({**good, "c": torch.zeros(1)}, "file: .*unknown: c"),
        ({**good, "b": torch.zeros(3)}, r"file: b has shape \(3,\), expected \(1, 3\)"),
        ({**good, "a": torch.zeros(2, dtype=torch.float64)}, "file: a is torch.float64, expected float32"),
    ):
        with pytest.raises(MtbertError, match=rf"{message}.*; download or copy the file again$"):
            check_tensors(bad, shapes, "file")
