"""The line through training scores: labels' scale, the same correlation, and nothing where there is no line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel
from mtbert.training import score_line
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain
from mtbert.training.score_line import fit_line

CPU = Compute(torch.device("cpu"), bf16=False)


@pytest.fixture
def rising(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> tuple[MultitaskModel, Split]:
    """A model and a split with scores that rise with the labels."""
    model, split = make_model(), make_split("sts", 40)
    assert split.labels is not None
    if stats.pearsonr(raw_scores(model, "sts", split, wrapper), split.labels).statistic < 0:
        model.heads["sts"].linear.weight.data.neg_()
    return model, split


def test_scores_are_put_on_the_labels_line(rising: tuple[MultitaskModel, Split], wrapper: Wrapper) -> None:
    model, split = rising
    before = raw_scores(model, "sts", split, wrapper)
    line = stats.linregress(before, split.labels)
    fit_line(Plain(model, CPU), "sts", split, wrapper, 1)
    np.testing.assert_allclose(
        raw_scores(model, "sts", split, wrapper), line.intercept + line.slope * before, atol=1e-5
    )


def test_of_many_examples_some_are_taken_by_the_seed(
    rising: tuple[MultitaskModel, Split], wrapper: Wrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = rising
    monkeypatch.setattr(score_line, "ROWS", 30)
    before, found = {name: value.clone() for name, value in model.state_dict().items()}, []
    for seed in (1, 1, 2):
        model.load_state_dict(before)
        fit_line(Plain(model, CPU), "sts", split, wrapper, seed)
        found.append(model.heads["sts"].linear.bias.item())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_scores_that_do_not_rise_with_the_labels_stay(
    factor: float, rising: tuple[MultitaskModel, Split], wrapper: Wrapper, capsys: pytest.CaptureFixture[str]
) -> None:
    model, split = rising
    linear = model.heads["sts"].linear
    linear.weight.data.mul_(factor)
    before = linear.weight.clone(), linear.bias.clone()
    fit_line(Plain(model, CPU), "sts", split, wrapper, 1)
    assert torch.equal(before[0], linear.weight) and torch.equal(before[1], linear.bias)
    assert "sts: scores do not rise with the labels" in capsys.readouterr().err
