"""The concatenated features of section 4.2."""

import torch
from mtbert.model.features import FEATURES, concatenate

POOLED = {
    "u": torch.tensor([[1.0, -2.0], [0.0, 3.0]]),
    "v": torch.tensor([[4.0, 1.0], [-5.0, 0.5]]),
    "c": torch.tensor([[9.0, 8.0], [7.0, 6.0]]),
}


def test_each_feature() -> None:
    expected = {
        "u": [[1, -2], [0, 3]],
        "v": [[4, 1], [-5, 0.5]],
        "|u-v|": [[3, 3], [5, 2.5]],
        "|u+v|": [[5, 1], [5, 3.5]],
        "c": [[9, 8], [7, 6]],
    }
    assert {name: concatenate([name], POOLED).tolist() for name in FEATURES} == expected


def test_features_stand_side_by_side_in_the_order_named() -> None:
    assert concatenate(["c", "|u-v|", "u"], POOLED).tolist() == [[9, 8, 3, 3, 1, -2], [7, 6, 5, 2.5, 0, 3]]


def test_absent_views_are_not_needed() -> None:
    assert concatenate(["u"], {"u": POOLED["u"]}).tolist() == [[1, -2], [0, 3]]
