"""The metrics logged during training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.work import objectives
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.development import development_metrics
from mtbert.evaluation.predict import raw_scores
from mtbert.evaluation.watched import WATCHED, watched
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.paper import TASKS

Make = Callable[..., Any]
LAYERS = objectives(["u", "v", "c"], ["u", "v", "c"])


@pytest.fixture
def splits(make_split: Make) -> dict[str, Split]:
    return {"sst": make_split("sst", 11), "quora": make_split("quora", 13), "sts": make_split("sts", 9)}


@pytest.fixture
def measure(splits: dict[str, Split], wrapper: Wrapper) -> Make:
    """measure(model, train, ...): the metrics of a model on the splits and on the training examples of SST."""

    def metrics(model: MultitaskModel, train: Split, **changes: Any) -> dict[str, Any]:
        settings = {"tasks": TASKS, "objectives": LAYERS, "seed": 1, **changes}
        return development_metrics(model, dev=splits, train={"sst": train}, wrapper=wrapper, **settings)

    return metrics


def test_each_metric_is_that_of_its_predictions(
    make_model: Make, make_split: Make, measure: Make, splits: dict[str, Split], wrapper: Wrapper
) -> None:
    model, train = make_model(), make_split("sst", 30)
    found = measure(model, train)
    values = {
        task: LAYERS[task].decide(raw_scores(model, task, split, wrapper), TASKS[task]).values
        for task, split in splits.items()
    }
    sst, quora = (float((values[task] == splits[task].labels).mean()) for task in ("sst", "quora"))
    sts = float(np.corrcoef(values["sts"], splits["sts"].labels)[0, 1])
    assert found["dev_sst"] == pytest.approx(sst)
    assert found["dev_quora"] == pytest.approx(quora)
    assert found["dev_sts"] == pytest.approx(sts)
    assert found["dev_overall"] == pytest.approx((sst + quora + (1 + sts) / 2) / 3)
    assert 0 <= found["train_sst"] <= 1
    assert list(found) == ["train_sst", "dev_sst", "dev_quora", "dev_sts", "dev_overall"]
    held = measure(model, train, held_out=splits)
    assert held.pop("held_out") == pytest.approx(found["dev_overall"]) and held == found
    assert measure(model, train, held_out={"sts": splits["sts"]}, watched=5)["held_out"] == (
        pytest.approx((1 + sts) / 2)
    ), "of all rows"


def test_training_accuracy_is_of_as_many_examples_and_seeded(make_model: Make, make_split: Make, measure: Make) -> None:
    model, train = make_model(), make_split("sst", 200)
    first = measure(model, train)
    assert measure(model, train) == first
    assert (first["train_sst"] * 11) == pytest.approx(round(first["train_sst"] * 11)), "11 examples, as many as in dev"
    others = {measure(model, train, seed=seed)["train_sst"] for seed in range(12)}
    assert len(others) > 1, "another seed, another choice"


def test_a_seeded_choice_is_watched(make_model: Make, make_split: Make, measure: Make) -> None:
    model, train = make_model(), make_split("sst", 30)
    some = [measure(model, train, seed=seed, watched=7) for seed in range(8)]
    assert measure(model, train, seed=3, watched=7) == some[3]
    for name in ("train_sst", "dev_sst", "dev_quora"):
        assert all((one[name] * 7) == pytest.approx(round(one[name] * 7)) for one in some)
    assert len({one["dev_sts"] for one in some}) > 1


@pytest.mark.parametrize(
    ("epoch_end", "tasks", "wanted"), [("depletion", 3, WATCHED), (40, 3, 53), (10**6, 3, WATCHED), (1, 9, 1)]
)
def test_short_epochs_are_watched_on_fewer_examples(epoch_end: str | int, tasks: int, wanted: int) -> None:
    assert watched(epoch_end, 8, tasks) == wanted


def test_it_is_measured_without_dropout_and_changes_nothing(make_model: Make, make_split: Make, measure: Make) -> None:
    model, train = make_model(dropout=0.5, head_dropout=0.5).train(), make_split("sst", 11)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = measure(model, train)
    assert model.training
    assert measure(model.eval(), train) == first
    assert first["train_sst"] == first["dev_sst"], "the same eleven examples in another order"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_undefined_correlation_is_none(
    make_model: Make, make_split: Make, measure: Make, splits: dict[str, Split]
) -> None:
    model = make_model()
    with torch.no_grad():
        model.heads["sts"].linear.weight.zero_()
    found = measure(model, make_split("sst", 11), held_out={"sts": splits["sts"]})
    assert found["dev_sts"] is None and found["held_out"] == 0.5
    assert found["dev_overall"] is None
    assert found["dev_sst"] is not None


def test_a_cosine_similarity_is_not_clamped_away(
    make_model: Make, make_split: Make, measure: Make, splits: dict[str, Split], wrapper: Wrapper
) -> None:
    """Cosines below 0 would all become 0 if they were treated as similarities."""
    model = make_model("mean", ["u", "v"], None)
    cosines = raw_scores(model, "sts", splits["sts"], wrapper)
    found = measure(model, make_split("sst", 11), objectives=objectives(["u", "v"], None))
    assert found["dev_sts"] == pytest.approx(float(np.corrcoef(cosines, splits["sts"].labels)[0, 1]))
