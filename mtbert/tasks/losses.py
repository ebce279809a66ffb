"""The objectives' losses (section 4.4 and later papers), and what R-Drop compares. Shapes: B examples, C classes; each returns ().

A loss is the mean over the batch, except that `pearson` and `cosent` are defined on a batch as a whole.
"""

import torch
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


def conditional_ordinal(logits_BR: Tensor, labels_B: Tensor) -> Tensor:
    """CORN (Shi, Cao and Raschka 2021): each rank's binary cross-entropy over the examples that reach it.

    The paper divides their sum by the number of these terms. Here it is divided by B: the mean of -log P(y = label).

    Args:
        logits_BR: of P(y > k | y >= k), R = C - 1; (B,) of two classes.
    """
    return F.nll_loss(log_probabilities_of_ranks(logits_BR), labels_B.long())


def log_probabilities_of_ranks(logits_BR: Tensor) -> Tensor:
    """log P(y = k) of each class, (B, C), from CORN's logits: y passes the ranks below k, and not rank k."""
    logits_BR = logits_BR.reshape(len(logits_BR), -1)
    ranks = logits_BR.shape[1]
    # A product sums over the ranks below k, since cumsum on CUDA is not deterministic.
    below_RC = logits_BR.new_ones(ranks, ranks + 1).triu(1)
    return F.logsigmoid(logits_BR) @ below_RC + F.pad(F.logsigmoid(-logits_BR), (0, 1))


def log_probabilities_of_logit(logits_B: Tensor) -> Tensor:
    """log P of labels 0 and 1, (B, 2), from the logit of label 1."""
    return torch.stack([F.logsigmoid(-logits_B), F.logsigmoid(logits_B)], dim=1)


def pearson(scores_B: Tensor, labels_B: Tensor) -> Tensor:
    """1 - r. Where r is undefined, in a batch of one example or of equal scores or labels, r is 0 without a gradient."""
    x, y = scores_B - scores_B.mean(), labels_B - labels_B.mean()
    xx, yy = x.square().mean(), y.square().mean()
    # Rounding makes equal values differ from their mean by up to 1e-7 of their size.
    defined = (xx > 1e-12 * scores_B.square().mean()) & (yy > 1e-12 * labels_B.square().mean())
    r = (x * y).mean() / torch.where(defined, xx * yy, 1).sqrt()
    return 1 - torch.where(defined, r, 0)


def cosent(scores_B: Tensor, labels_B: Tensor, scale: float) -> Tensor:
    """CoSENT (Su 2022), as in sentence-transformers: log(1 + the sum of exp(scale (s_i - s_j)) over pairs with y_i < y_j)."""
    differences_BB = scale * (scores_B[:, None] - scores_B[None, :])
    wrong_way_BB = labels_B[:, None] < labels_B[None, :]
    terms = differences_BB.masked_fill(~wrong_way_BB, -torch.inf).flatten()
    return torch.logsumexp(F.pad(terms, (1, 0)), 0)


def symmetric_kl(log_p_BC: Tensor, log_q_BC: Tensor) -> Tensor:
    """The mean of KL(p || q) and KL(q || p), averaged over the examples (Liang et al. 2021)."""
    return ((log_p_BC.exp() - log_q_BC.exp()) * (log_p_BC - log_q_BC)).sum(1).mean() / 2
