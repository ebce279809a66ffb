"""The losses against torch's own modules, scipy and sentence-transformers: values and gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from mtbert.tasks.losses import (
    binary_cross_entropy,
    conditional_ordinal,
    cosent,
    cosine_embedding,
    cross_entropy,
    log_probabilities_of_logit,
    log_probabilities_of_ranks,
    mean_squared_error,
    pearson,
    symmetric_kl,
)

Loss = Callable[[Tensor, Tensor], Tensor]
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(9, 5, generator=GENERATOR)
SCORES = 3 * torch.randn(9, generator=GENERATOR)
CLASSES = torch.tensor([0, 1, 2, 3, 4, 4, 0, 2, 1.0])
DUPLICATES = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1.0])
SIMILARITIES = torch.tensor([0, 5, 2.5, 2.4, 3.8, 1, 4.2, 0.2, 2.6])


def value_and_gradient(loss: Loss, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.clone().requires_grad_()
    value = loss(scores, labels)
    assert value.shape == ()
    value.backward()
    assert scores.grad is not None
    return value.detach(), scores.grad


def assert_same(ours: Loss, theirs: Loss, u: Tensor, v: Tensor) -> None:
    """Both losses of sentences' vectors u and v have the same value and gradients."""
    results = []
    for loss in (ours, theirs):
        a, b = u.clone().requires_grad_(), v.clone().requires_grad_()
        value = loss(a, b)
        value.backward()
        results.append((value.detach(), a.grad, b.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs", "scores", "labels"),
    [
        (cross_entropy, lambda x, y: nn.CrossEntropyLoss()(x, y.long()), LOGITS, CLASSES),
        (
            partial(cross_entropy, label_smoothing=0.1),
            lambda x, y: nn.CrossEntropyLoss(label_smoothing=0.1)(x, y.long()),
            LOGITS,
            CLASSES,
        ),
        (binary_cross_entropy, nn.BCEWithLogitsLoss(), SCORES, DUPLICATES),
        # The sigmoid of x is the softmax of 0 and x, so smoothing is that of two classes.
        (
            partial(binary_cross_entropy, label_smoothing=0.2),
            lambda x, y: nn.CrossEntropyLoss(label_smoothing=0.2)(torch.stack([0 * x, x], 1), y.long()),
            SCORES,
            DUPLICATES,
        ),
        (mean_squared_error, nn.MSELoss(), SCORES, SIMILARITIES),
    ],
)
def test_equals_torch(ours: Loss, theirs: Loss, scores: Tensor, labels: Tensor) -> None:
    for one, other in zip(
        value_and_gradient(ours, scores, labels), value_and_gradient(theirs, scores, labels), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.3])
@pytest.mark.parametrize("threshold", [2.5, 4.0])
def test_cosine_embedding_equals_torch_on_the_vectors(margin: float, threshold: float) -> None:
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(9, 4, generator=generator) for _ in range(2))
    y = torch.where(threshold <= SIMILARITIES, 1, -1)
    assert_same(
        lambda a, b: cosine_embedding(torch.cosine_similarity(a, b), SIMILARITIES, margin, threshold),
        lambda a, b: nn.CosineEmbeddingLoss(margin)(a, b, y),
        u,
        v,
    )


def test_equation_1_by_hand() -> None:
    cosines = torch.tensor([0.8, 0.8, 0.2, -0.4])
    labels = torch.tensor([5.0, 0.0, 1.0, 2.0])
    # 1 - .8; .8 - .25; .2 is within the margin; so is -.4
    assert float(cosine_embedding(cosines, labels, 0.25, 2.5)) == pytest.approx((0.2 + 0.55) / 4)
    assert float(cosine_embedding(cosines[:1], torch.tensor([2.5]), 0.0, 2.5)) == pytest.approx(0.2), (
        "from the threshold on"
    )


def test_extreme_logits_stay_finite() -> None:
    for scores in (torch.full((2,), 1e4), torch.full((2,), -1e4)):
        assert torch.isfinite(binary_cross_entropy(scores, torch.tensor([0.0, 1.0])))
        assert torch.isfinite(cross_entropy(scores[:, None] * torch.eye(2, 5), torch.tensor([0.0, 1.0])))


def test_pearson_is_that_of_scipy() -> None:
    value, gradient = value_and_gradient(pearson, SCORES, SIMILARITIES)
    assert float(value) == pytest.approx(1 - stats.pearsonr(SCORES, SIMILARITIES).statistic, abs=1e-6)
    assert gradient.abs().min() > 0
    moved, _ = value_and_gradient(pearson, 3 * SCORES - 40, SIMILARITIES)
    assert float(moved) == pytest.approx(float(value), abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([2.3], [4.0]), ([3.3] * 7, list(range(7))), ([0.0, 0.0], [0.0, 5.0]), ([0.1, 0.7, 0.4], [2.4] * 3)],
)
def test_where_r_is_undefined_it_is_zero_without_a_gradient(scores: list[float], labels: list[float]) -> None:
    value, gradient = value_and_gradient(pearson, torch.tensor(scores), torch.tensor(labels, dtype=torch.float32))
    assert float(value) == 1 and gradient.tolist() == [0] * len(scores)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_cosent_is_that_of_sentence_transformers(scale: float) -> None:
    library = pytest.importorskip("sentence_transformers.losses")
    u, v = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2))
    assert_same(
        lambda a, b: cosent(torch.cosine_similarity(a, b), SIMILARITIES, scale),
        lambda a, b: library.CoSENTLoss(None, scale).compute_loss_from_embeddings([a, b], SIMILARITIES),
        u,
        v,
    )


def test_cosent_of_one_example_or_of_equal_labels_is_zero() -> None:
    for scores, labels in ((SCORES[:1], SIMILARITIES[:1]), (SCORES, torch.ones(9))):
        value, gradient = value_and_gradient(lambda x, y: cosent(x, y, 20.0), scores, labels)
        assert float(value) == 0 and not gradient.any()


LISTS = st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=8)


@given(LISTS)
def test_corn_s_probabilities_are_consistent(logits: list[float]) -> None:
    """Whatever the weights: they sum to 1, and P(y > k) never rises with k."""
    shares = log_probabilities_of_ranks(torch.tensor([logits], dtype=torch.float64)).exp()[0]
    assert float(shares.sum()) == pytest.approx(1)
    above = torch.tensor(logits, dtype=torch.float64).sigmoid().cumprod(0)
    for rank, probability in enumerate(above):
        assert float(shares[rank + 1 :].sum()) == pytest.approx(float(probability), abs=1e-12)


def test_corn_is_binary_cross_entropy_over_the_examples_that_reach_a_rank() -> None:
    """The paper's sum, divided by the number of examples."""
    logits = LOGITS[:, :4]
    value, gradient = value_and_gradient(conditional_ordinal, logits, CLASSES)

    def published(x: Tensor, y: Tensor) -> Tensor:
        terms = [
            F.binary_cross_entropy_with_logits(x[y >= k, k], (y[y >= k] > k).float(), reduction="sum") for k in range(4)
        ]
        return torch.stack(terms).sum() / len(y)

    expected = value_and_gradient(published, logits, CLASSES)
    torch.testing.assert_close((value, gradient), expected)


@given(LISTS, st.randoms(use_true_random=False))
def test_the_symmetric_divergence(logits: list[float], random: Any) -> None:
    one = torch.tensor([logits], dtype=torch.float64).log_softmax(1)
    other = torch.tensor([[random.uniform(-3, 3) for _ in logits]], dtype=torch.float64).log_softmax(1)
    apart = symmetric_kl(one, other)
    assert float(symmetric_kl(one, one)) == 0
    torch.testing.assert_close(apart, symmetric_kl(other, one))
    both = [F.kl_div(p, q, reduction="batchmean", log_target=True) for p, q in ((one, other), (other, one))]
    torch.testing.assert_close(apart, sum(both) / 2)


def test_the_probabilities_of_a_logit_are_those_of_its_sigmoid() -> None:
    np.testing.assert_allclose(log_probabilities_of_logit(SCORES).exp()[:, 1], SCORES.sigmoid(), rtol=1e-6)
