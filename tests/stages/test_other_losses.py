"""Runs with the losses and weights of docs/training.md, from train to predictions; and what several processes cannot share."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

import mtbert
from mtbert.errors import MtbertError
from mtbert.pretrained.store import load_model, read_config
from mtbert.training.distributed import Group
from stages import evaluate, train
from tests.stage_fixtures import ROOT

SECTION = (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("## Other losses and weights")[2]
OTHER_LOSSES = YAML(typ="safe").load(SECTION.partition("```yaml\n")[2].partition("```")[0])["runs"]["other_losses"]
COSINES: dict[str, Any] = {
    "encoding": "bi",
    "heads": {
        "sst": {"objective": "cross_entropy", "features": ["u"]},
        "quora": {"objective": "cosine"},
        "sts": {"objective": "cosine_cosent"},
    },
    "task_weights": {"sst": 2.0},
}
PAIR = ("A cat sleeps.", "A dog sleeps.")


@pytest.mark.parametrize("keys", [OTHER_LOSSES, COSINES])
def test_from_train_to_predictions(project: Path, change: Callable[..., None], keys: dict[str, Any]) -> None:
    keys = {**keys, "learning_rate": 0.02, "epochs": 6}  # enough for scores above 0
    keys.pop("from", None)
    change(only=["baseline", "key_update_1", "key_update_2", "key_update_3", "best_performance"], best_performance=keys)
    train.main("best_performance")
    evaluate.main("best_performance")
    assert 0 < json.loads((project / "metrics/best_performance.json").read_text(encoding="utf-8"))["overall"] < 1

    config, (weights, _) = read_config(project / "models/best_performance"), load_model(Path("models/best_performance"))
    assert not [name for name in weights if "uncertainty" in name], "only the losses need them"
    assert sum(weight.numel() for weight in weights.values()) == config["parameters"]["total"]
    learned = config["training"].get("log_variances", {})
    assert learned.keys() == ({"sst", "quora", "sts"} if "uncertainty" in keys else set())
    assert all(learned.values())
    assert ("pair_layer.linear.weight" in weights) == ("pair_layer" in keys)

    model = mtbert.load("best_performance", device="cpu")
    (sentiment,) = model.predict("sst", [PAIR[0]])
    assert isinstance(sentiment, mtbert.Label) and len(sentiment.probabilities) == 5
    assert sum(sentiment.probabilities.values()) == pytest.approx(1)
    assert sentiment.label == max(sentiment.probabilities, key=sentiment.probabilities.__getitem__)
    (score,) = model.predict("sts", [PAIR])
    assert isinstance(score, mtbert.Score) and 0 <= score.score <= 5
    table = pd.read_csv(project / "results/best_performance/examples/sst-dev.csv")
    assert table["score"].between(0.2, 1).all(), "the probability of the likeliest of five classes"


def test_r_drop_counts_the_tokens_of_both_passes(project: Path, change: Callable[..., None]) -> None:
    tokens = []
    for r_drop in (None, 1.0):
        change(baseline={"r_drop": r_drop})
        train.main("baseline")
        tokens.append(read_config(project / "models/baseline")["training"]["tokens"])
    assert tokens[1] == 2 * tokens[0]


def test_several_processes_cannot_share_a_correlation(
    project: Path, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {**COSINES["heads"], "sts": {"objective": "pearson", "features": ["u"], "clamp": True}}
    change(baseline={"heads": heads, "tasks": ["sst", "sts"]})
    monkeypatch.setattr(train, "joined", lambda _: nullcontext(Group(0, 2)))
    with pytest.raises(
        MtbertError,
        match=r"runs\.baseline\.heads\.sts\.objective: pearson compares the examples of a whole batch, so 2 processes",
    ):
        train.main("baseline")
