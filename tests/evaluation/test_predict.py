"""Scores of a whole split, in its order and independent of batching; and the decisions made from them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.predict import decide, raw_scores
from mtbert.model.multitask import MultitaskModel

TASKS = ["sst", "quora", "sts"]


@pytest.mark.parametrize("task", TASKS)
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


@pytest.mark.parametrize("task", TASKS)
def test_batch_size_and_order_do_not_matter(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper, task: str
) -> None:
    model, split = make_model().eval(), make_split(task, 17)
    scores = raw_scores(model, task, split, wrapper)
    assert not model.training
    for batch_size in (1, 3, 64):
        np.testing.assert_allclose(
            raw_scores(model, task, split, wrapper, batch_size=batch_size), scores, atol=5e-6, rtol=0
        )
    rows = np.random.default_rng(0).permutation(17)[:11]
    chosen = raw_scores(model, task, split, wrapper, rows=rows, batch_size=4)
    np.testing.assert_allclose(chosen, scores[rows], atol=5e-6, rtol=0)


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


def test_sentiment_is_the_likeliest_class_with_its_probability() -> None:
    raw = np.array([[0, 1, 2, 3, 4], [5, 0, 0, 0, 0], [900, 0, 0, 0, 901]], np.float32)
    found = decide("sst", raw, cosine=False)
    assert found.values.tolist() == [4, 0, 4]
    exp = np.exp([0, 1, 2, 3, 4.0])
    expected = [exp[4] / exp.sum(), np.exp(5) / (np.exp(5) + 4), 1 / (1 + np.exp(-1))]
    assert found.scores.tolist() == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_paraphrase_is_a_probability_above_one_half() -> None:
    found = decide("quora", np.array([-2, 0, 1e-6, 3, -1e4, 1e4], np.float32), cosine=False)
    assert found.values.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(2)), 0.5, 0.5, 1 / (1 + np.exp(-3)), 0, 1], abs=1e-6)


def test_similarity_is_clamped_only_if_asked() -> None:
    raw = np.array([-0.5, 0, 2.25, 5, 5.5], np.float32)
    clamped, free = decide("sts", raw, cosine=False, clamp=True), decide("sts", raw, cosine=False, clamp=False)
    assert clamped.values.tolist() == clamped.scores.tolist() == [0, 0, 2.25, 5, 5]
    assert free.values.tolist() == [-0.5, 0, 2.25, 5, 5.5]


def test_a_cosine_maps_to_the_whole_range() -> None:
    raw = np.array([-1, 0, 0.5, 1], np.float32)
    assert decide("sts", raw, cosine=True).values.tolist() == [0, 2.5, 3.75, 5]
