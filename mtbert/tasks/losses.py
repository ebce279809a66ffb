"""The objectives' losses (section 4.4). Shapes: B examples, C classes; each returns the mean over the batch, ()."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the classes.

    Args:
        label_smoothing: ε: the target is 1 - ε for the label plus ε / C for every class (Szegedy et al. 2016).
    """
    return F.cross_entropy(logits_BC, labels_B.long(), label_smoothing=label_smoothing)


def binary_cross_entropy(logits_B: Tensor, labels_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of the logit of label 1; `label_smoothing` as for `cross_entropy`, of two classes."""
    return F.binary_cross_entropy_with_logits(logits_B, labels_B * (1 - label_smoothing) + label_smoothing / 2)


def mean_squared_error(scores_B: Tensor, labels_B: Tensor) -> Tensor:
    """Mean squared error, in squared points of the score. Only predictions are clamped: a clamped score has no gradient."""
    return F.mse_loss(scores_B, labels_B)


def cosine_embedding(cosine_B: Tensor, labels_B: Tensor, margin: float, threshold: float) -> Tensor:
    """Equation 1: 1 - cos(u, v) where y = 1, max(0, cos(u, v) - margin) where y = -1.

    Args:
        cosine_B: cos(u, v).
        labels_B: scores; y = 1 if at least `threshold`, else -1.
    """
    pulled = 1 - cosine_B
    pushed = (cosine_B - margin).clamp_min(0)
    return pulled.where(labels_B >= threshold, pushed).mean()
