"""Scores for a whole split, and what they mean. Shapes: B examples of the split, C classes."""

from typing import NamedTuple

import numpy as np
import torch

from mtbert.data.arrays import Split
from mtbert.data.batches import length_grouped, make_batch
from mtbert.data.tokens import Wrapper
from mtbert.model.multitask import MultitaskModel


class Predictions(NamedTuple):
    """One row per example, in the split's order.

    Attributes:
        values: the predicted label: class 0..4, duplicate 0 or 1, similarity 0..5; (B,) float64.
        scores: sst: probability of the predicted class; quora: probability of a duplicate; sts: the similarity; (B,).
    """

    values: np.ndarray
    scores: np.ndarray


def raw_scores(
    model: MultitaskModel,
    task: str,
    split: Split,
    wrapper: Wrapper,
    *,
    rows: np.ndarray | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """The model's output for every example, (B, C) or (B,) float32, in the order of `rows` and without dropout.

    Args:
        rows: which examples, by default all of the split in its order.

    Examples are grouped by length to be computed; a prediction does not depend on its neighbours.

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


def decide(task: str, raw: np.ndarray, *, cosine: bool, clamp: bool = True) -> Predictions:
    """From the model's output to predictions.

    Args:
        task: sst, quora or sts.
        raw: what `raw_scores` gave.
        cosine: sts only: raw is cos(u, v), which maps linearly from -1..1 to 0..5 (Pearson's r is blind to the map).
        clamp: sts only: keep predictions within 0..5 (section 4.4).
    """
    raw = raw.astype(np.float64)
    if task == "sst":
        exp = np.exp(raw - raw.max(1, keepdims=True))
        values = raw.argmax(1)
        return Predictions(values.astype(np.float64), (exp / exp.sum(1, keepdims=True))[np.arange(len(raw)), values])
    if task == "quora":
        return Predictions((raw > 0).astype(np.float64), np.exp(-np.logaddexp(0, -raw)))
    values = 2.5 * (1 + raw) if cosine else raw
    if clamp:
        values = values.clip(0, 5)
    return Predictions(values, values)
