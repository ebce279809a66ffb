"""Task heads: their formulas and the views that they read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.work import objectives
from mtbert.data.batches import make_batch
from mtbert.model.bert import BertEncoder
from mtbert.model.dropout import Noise
from mtbert.model.heads import CosineHead, HeadOverPairLayer, LinearHead, PairLayer, build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.paper import TASKS
from tests.tiny import NARROW, WRAPPER, tiny_split

POOLED = {name: torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate("uvc")}


def test_a_linear_head_is_one_layer_over_the_features() -> None:
    head = LinearHead(["v", "|u-v|"], 3, 5, 0.5, Noise()).eval()
    features = torch.cat([POOLED["v"], (POOLED["u"] - POOLED["v"]).abs()], 1)
    torch.testing.assert_close(head(POOLED), features @ head.linear.weight.T + head.linear.bias)
    assert head(POOLED).shape == (4, 5)
    assert head.views == ("u", "v")


def test_one_output_is_one_number_per_example() -> None:
    head = LinearHead(["u", "v", "c"], 3, 1, 0.0, Noise())
    assert head(POOLED).shape == (4,)
    assert head({name: value[:1] for name, value in POOLED.items()}).shape == (1,)
    assert head.views == ("u", "v", "c")


def test_dropout_is_on_the_features_in_training() -> None:
    head = LinearHead(["u"], 3, 3, 0.5, Noise())
    torch.nn.init.eye_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    pooled = {"u": torch.ones(2000, 3)}
    assert set(head(pooled).unique().tolist()) == {0, 2}
    assert set(head.eval()(pooled).unique().tolist()) == {1}


def test_the_cosine_head_is_the_cosine() -> None:
    head = CosineHead()
    u, v = POOLED["u"], POOLED["v"]
    expected = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    torch.testing.assert_close(head(POOLED), expected)
    torch.testing.assert_close(head({"u": u, "v": -2 * u}), -torch.ones(4))
    assert head.views == ("u", "v")
    assert list(head.parameters()) == []


def test_the_cosine_of_bf16_vectors_is_computed_in_fp32() -> None:
    u = POOLED["u"].bfloat16()
    cosine = CosineHead()({"u": u, "v": u})
    assert cosine.dtype == torch.float32
    assert cosine.tolist() == pytest.approx([1] * 4, abs=1e-6)


def test_the_pair_layer_is_one_layer_for_all_tasks_of_pairs() -> None:
    features = ["|u-v|", "c"]
    heads = build_heads(objectives(features, features), TASKS, 3, 0.5, Noise(), pair_size=7)
    layer = PairLayer(features, 3, 7, 0.5, Noise()).eval()
    assert {layer.dropout.unit, *(head.dropout.unit for head in heads.values())} == {"examples"}  # type: ignore[union-attr]
    model = MultitaskModel(BertEncoder(NARROW), "mean", heads, layer).eval()
    inputs = torch.cat([(POOLED["u"] - POOLED["v"]).abs(), POOLED["c"]], 1)
    shared = torch.tanh(inputs @ layer.linear.weight.T + layer.linear.bias)
    batch = make_batch("quora", tiny_split("quora", 4), np.arange(4), model.views("quora"), WRAPPER)
    model.pooled = lambda *_: torch.cat([POOLED[name] for name in batch.views])  # type: ignore[method-assign]
    for task in ("quora", "sts"):
        head = heads[task]
        assert isinstance(head, HeadOverPairLayer) and head.views == ("u", "v", "c") and head.linear.in_features == 7
        expected = (shared @ head.linear.weight.T + head.linear.bias).squeeze(-1)
        torch.testing.assert_close(model(replace(batch, task=task)), expected)
    assert isinstance(heads["sst"], LinearHead), "a sentence has no pair layer"
    names = [name for name in model.state_dict() if name.startswith("pair_layer")]
    assert names == ["pair_layer.linear.weight", "pair_layer.linear.bias"], "once, whatever the number of tasks"
