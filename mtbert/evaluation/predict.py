"""A model's outputs for a whole split. Shapes: B examples, C classes."""

import numpy as np
import torch

from mtbert.data.arrays import Split
from mtbert.data.batches import length_grouped, make_batch
from mtbert.data.tokens import Wrapper
from mtbert.model.multitask import MultitaskModel


def raw_scores(
    model: MultitaskModel,
    task: str,
    split: Split,
    wrapper: Wrapper,
    *,
    rows: np.ndarray | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """The model's outputs, (B, C) or (B,) float32, computed without dropout.

    Batches are made of examples of similar length. An example's output does not depend on the others in its batch.

    Args:
        rows: indices of the B examples, in the order of the result; by default the whole split.

    Raises:
        ValueError: there are no examples.
    """
    rows = np.arange(len(split)) if rows is None else rows
    if not len(rows):
        raise ValueError(f"{task}: no examples to predict")
    device = next(model.parameters()).device
    parts, places = [], []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for chosen in length_grouped(split, rows, batch_size):
                batch = make_batch(task, split, rows[chosen], model.views(task), wrapper)
                parts.append(model(batch.to(device)).cpu().numpy())
                places.append(chosen)
    finally:
        model.train(was_training)
    scores = np.concatenate(parts)
    out = np.empty_like(scores)
    out[np.concatenate(places)] = scores
    return out
