"""Scores of a whole split, in its order and independent of batching."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
def test_scores_are_those_of_each_example_alone(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper, task: str
) -> None:
    model, split = make_model().train(), make_split(task, 23)
    scores = raw_scores(model, task, split, wrapper)
    assert scores.shape == ((23, 5) if task == "sst" else (23,))
    assert scores.dtype == np.float32
    assert model.training, "the mode is given back"
    model.eval()
    with torch.no_grad():
        for row in range(23):
            alone = model(make_batch(task, split, np.array([row]), model.views(task), wrapper))[0].numpy()
            np.testing.assert_allclose(scores[row], alone, atol=5e-6, rtol=0)
    rows = np.random.default_rng(0).permutation(23)[:11]
    chosen = raw_scores(model, task, split, wrapper, rows=rows, batch_size=4)
    np.testing.assert_allclose(chosen, scores[rows], atol=5e-6, rtol=0)
    assert not model.training


def test_labels_are_not_looked_at(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    model = make_model()
    labelled, unlabelled = make_split("sts", 9), make_split("sts", 9, labelled=False)
    np.testing.assert_array_equal(
        raw_scores(model, "sts", labelled, wrapper), raw_scores(model, "sts", unlabelled, wrapper)
    )


def test_the_mode_is_given_back_after_a_fault(
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model().train()

    def fail(_stream: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model.encoder, "forward", fail)
    with pytest.raises(KeyboardInterrupt):
        raw_scores(model, "sst", make_split("sst", 3), wrapper)
    assert model.training


def test_no_examples_are_an_error(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    with pytest.raises(ValueError, match="sst: no examples"):
        raw_scores(make_model(), "sst", make_split("sst", 3), wrapper, rows=np.array([], int))
