"""The losses against torch's own modules: values and gradients."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mtbert.tasks.losses import binary_cross_entropy, cosine_embedding, cross_entropy, mean_squared_error

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
    results = []
    for loss in (
        lambda a, b: cosine_embedding(torch.cosine_similarity(a, b), SIMILARITIES, margin, threshold),
        lambda a, b: nn.CosineEmbeddingLoss(margin)(a, b, y),
    ):
        a, b = u.clone().requires_grad_(), v.clone().requires_grad_()
        value = loss(a, b)
        value.backward()
        results.append((value.detach(), a.grad, b.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


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
