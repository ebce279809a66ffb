"""Features of a pair (section 4.2) by hand."""

import torch

from mtbert.tasks.features import FEATURES

POOLED = {
    "u": torch.tensor([[1.0, -2.0], [0.0, 3.0]]),
    "v": torch.tensor([[4.0, 1.0], [-2.5, 3.0]]),
    "c": torch.tensor([[9.0, 8.0], [7.0, 6.0]]),
}


def test_each_by_hand() -> None:
    assert {name: feature(POOLED).tolist() for name, feature in FEATURES.items()} == {
        "u": [[1, -2], [0, 3]],
        "v": [[4, 1], [-2.5, 3]],
        "|u-v|": [[3, 3], [2.5, 0]],
        "|u+v|": [[5, 1], [2.5, 6]],
        "c": [[9, 8], [7, 6]],
    }
