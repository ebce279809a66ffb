"""Adapters in a whole model: outputs unchanged at the start, the trainable set, merging, and the paper's counts."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mtbert.data.arrays import Split
from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import PairLayer
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import (
    adapter_state,
    convert,
    count_parameters,
    kept_state,
    linears,
    load_adapter,
    merge,
)
from mtbert.peft.layer import AdaptedLinear
from mtbert.peft.registry import ADAPTERS, Selection
from tests.tiny import adapt as add
from tests.tiny import multitask

LINEARS = [
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "feed_forward.up",
    "feed_forward.down",
]
CONFIG = BertConfig(vocabulary=40, positions=32, layers=2, hidden=8, heads=2, intermediate=12)
# The parameters that a method adds to each layer that it adapts.
LOW_RANK = ("lora_a", "lora_b")
ADDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lora", "rslora", "lora_plus"), LOW_RANK),
    "dora": (*LOW_RANK, "magnitude"),
    "pissa": (*LOW_RANK, "principal_a", "principal_b"),
    "miss": ("shard",),
    "vera": ("d", "b"),
    "oft": ("skew",),
    "ia3": ("factor",),
    **dict.fromkeys(("bitfit", "linear_probe"), ()),
}
MERGING = [name for name, kind in ADAPTERS.items() if kind.merges]  # test_inserted.py tests the others
EVERY = pytest.mark.parametrize("method", MERGING)


def adapt(model: MultitaskModel, method: str = "dora", **own: Any) -> list[str]:
    """Add the adapter; the names of the adapted layers."""
    add(model, method, **{"seed": 5, **own})
    return [name for name, module in model.named_modules() if isinstance(module, AdaptedLinear)]


def adapted_by(method: str) -> set[str]:
    """The encoder's layers that a method adapts."""
    if not ADDED[method]:
        return set()
    every = {f"encoder.layers.{layer}.{name}" for layer in range(2) for name in LINEARS} | {"encoder.pooler"}
    return {name for name in every if name.endswith(("key", "value", "down"))} if method == "ia3" else every


def own_of(method: str, plain: Collection[str]) -> set[str]:
    """The names of a method's own parameters; `plain` are those of the model without it."""
    if method == "bitfit":
        return {name for name in plain if name.startswith("encoder.") and name.endswith("bias")}
    if method == "linear_probe":
        return {name for name in plain if name.startswith("heads.")}
    return {f"{name}.{part}" for name in adapted_by(method) for part in ADDED[method]}


@pytest.fixture
def model(make_model: Callable[..., MultitaskModel]) -> MultitaskModel:
    return make_model("cls", config=CONFIG)


@pytest.fixture
def batches(make_split: Callable[..., Split], wrapper: Wrapper) -> list[Batch]:
    views = {"sst": ("u",), "quora": ("u", "v", "c"), "sts": ("u", "v", "c")}
    return [make_batch(task, make_split(task, 6), np.arange(6), views[task], wrapper) for task in views]


def outputs(model: MultitaskModel, batches: list[Batch]) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        return [model(batch) for batch in batches]


def disturb(model: MultitaskModel) -> None:
    """Change what training changes of the adapter's own parameters."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name in (model.adapter_rates or {}) and parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@EVERY
def test_conversion_leaves_outputs_unchanged(method: str, model: MultitaskModel, batches: list[Batch]) -> None:
    before = outputs(model, batches)
    names = adapt(model, method)
    assert set(names) == adapted_by(method)
    assert all(type(head.linear) is nn.Linear for head in model.heads.values()), "the heads stay plain"
    for one, other in zip(outputs(model, batches), before, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=2e-6)


def test_a_model_without_a_pooler_is_adapted(make_model: Callable[..., MultitaskModel]) -> None:
    model = make_model("mean", config=CONFIG)
    assert set(adapt(model)) == {f"encoder.layers.{layer}.{name}" for layer in range(2) for name in LINEARS}
    merge(model)
    assert not any("pooler" in name for name in model.state_dict())


def test_a_rank_above_the_narrowest_layer_s_width_is_refused(make_model: Callable[..., MultitaskModel]) -> None:
    narrow = replace(CONFIG, intermediate=6)
    adapt(make_model(config=narrow), rank=6)
    model = make_model(config=narrow)
    for rank in (7, 4096):
        with pytest.raises(
            MtbertError, match=rf"^adapter\.rank is {rank}, .*layers\.0\.feed_forward\.up, is 6 wide.*at most 6$"
        ):
            adapt(model, rank=rank)
    with pytest.raises(
        MtbertError, match=r"^adapter\.block_size is 4, .* the 6 inputs of .*\.down; set it to a divisor of 2,"
    ):
        adapt(model, "oft")
    assert not any(isinstance(module, AdaptedLinear) for module in model.modules()), "the model is left as it was"


@EVERY
def test_adapter_state_restores_an_adapted_model(
    method: str, model: MultitaskModel, batches: list[Batch], make_model: Callable[..., MultitaskModel]
) -> None:
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapt(model, method)
    disturb(model)
    own = adapter_state(model)
    assert own.keys() - plain.keys() == model.state_dict().keys() - plain.keys()
    assert own.keys() == (model.adapter_rates or {}).keys() == own_of(method, plain)

    other = make_model("cls", config=CONFIG, seed=9)
    other.load_state_dict(plain)
    adapt(other, method, seed=5 if method == "vera" else 6)  # VeRA's A and B are not saved, and follow from the seed
    outputs(other, batches)
    load_adapter(other, own, "x.safetensors")
    for one, two in zip(outputs(other, batches), outputs(model, batches), strict=True):
        assert torch.equal(one, two)

    first, tensor = next(iter(own.items()))
    for bad, message in (
        ({name: tensor for name, tensor in own.items() if name != first}, f"missing: {first}"),
        ({**own, "encoder.embeddings.norm.weight": torch.ones(8)}, r"unknown: encoder\.embeddings\.norm\.weight"),
        ({**own, first: tensor[None]}, rf"{first} has shape .*, expected .*"),
    ):
        with pytest.raises(MtbertError, match=rf"^x\.safetensors: .*{message}"):
            load_adapter(other, bad, "x.safetensors")
    with pytest.raises(MtbertError, match="unknown"):
        load_adapter(make_model("cls", config=CONFIG), own, "x.safetensors")


def test_adapters_are_a_function_of_the_seed(make_model: Callable[..., MultitaskModel]) -> None:
    def weights(seed: int) -> Tensor:
        model = make_model()
        torch.rand(seed + 1)  # the global generator's state does not matter
        before = torch.random.get_rng_state()
        adapt(model, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return torch.cat([value.flatten() for name, value in model.state_dict().items() if name.endswith("lora_a")])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@EVERY
@pytest.mark.parametrize("train_rest", [True, False])
def test_the_trainable_set(model: MultitaskModel, train_rest: bool, method: str) -> None:
    model.pair_layer = PairLayer(["u"], CONFIG.hidden, 2, 0.0, model.encoder.noise)
    plain = {name for name, _ in model.named_parameters()}
    weights = {f"{name}.weight" for name in linears(model)}
    if train_rest and issubclass(ADAPTERS[method], Selection):
        with pytest.raises(ValidationError, match=f"{method} trains nothing else of the encoder; set it to false"):
            adapt(model, method, train_rest=True)
        return
    adapt(model, method, train_rest=train_rest)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = {name for name in own_of(method, plain) if "principal" not in name}
    expected |= {name for name in plain if name.startswith(("heads.", "pair_layer."))}
    assert trainable == expected | (plain - weights if train_rest else set())
    kept = trainable | own_of(method, plain)
    assert kept_state(model).keys() == kept
    counts = count_parameters(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert counts["adapters_only"] == sum(sizes[name] for name in expected)
    assert counts["total"] == sum(sizes[name] for name in plain)


@EVERY
def test_merged_equals_unmerged_and_a_second_merge_changes_nothing(
    method: str, model: MultitaskModel, batches: list[Batch]
) -> None:
    plain = dict(model.state_dict())
    adapt(model, method)
    disturb(model)
    before = outputs(model, batches)
    merge(model)
    assert not any(isinstance(module, AdaptedLinear) for module in model.modules())
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in plain.items()
    }, "a merged model is a plain model"
    for one, other in zip(outputs(model, batches), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    merge(model)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_convert_takes_any_replacement(model: MultitaskModel, batches: list[Batch]) -> None:
    class Doubled(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.linear(x)

    before = outputs(model, batches)
    convert(model, Doubled)
    assert sum(isinstance(one, Doubled) for one in model.encoder.modules()) == 13
    assert float((outputs(model, batches)[0] - before[0]).abs().max()) > 1e-2


def bert_base(rank: int | None, train_rest: bool) -> dict[str, int | None]:
    """Counts for BERT-base with the heads of the best run; on the meta device, so that nothing is allocated."""
    with torch.device("meta"):
        model = multitask(BertEncoder(BertConfig()), "mean", ["u", "v", "c"], ["u", "v", "c"])
        if rank is not None:
            adapt(model, rank=rank, train_rest=train_rest)
    return count_parameters(model)


HEADS = 5 * 768 + 5 + 2 * (3 * 768 + 1)
TOTAL = 109_482_240 - 768 * 769 + HEADS  # under mean pooling there is no pooler
# m, A and B of the six layers of each of 12 blocks: outputs + rank * (inputs + outputs).
SHAPES = 12 * [*(4 * [(768, 768)]), (768, 3072), (3072, 768)]
REST = TOTAL - HEADS - sum(inputs * outputs for inputs, outputs in SHAPES)


def test_full_model() -> None:
    assert bert_base(None, True) == {"total": TOTAL, "trainable": TOTAL, "adapters_only": None}
    assert round(TOTAL / 1e6, 1) == 108.9


@pytest.mark.parametrize(
    ("rank", "alone", "alone_share", "with_rest", "with_rest_share"),
    # Millions, and per cent of the full model; the two counts differ by REST whatever the rank.
    [(4, 0.75, 0.7, 24.7, 22.7), (8, 1.42, 1.3, 25.4, 23.3), (16, 2.75, 2.5, 26.7, 24.5), (32, 5.4, 5.0, 29.4, 27.0)],
)
def test_counts_of_the_paper_s_ranks(
    rank: int, alone: float, alone_share: float, with_rest: float, with_rest_share: float
) -> None:
    adapters = sum(outputs + rank * (inputs + outputs) for inputs, outputs in SHAPES)
    frozen, free = bert_base(rank, False), bert_base(rank, True)
    assert frozen == {"total": TOTAL, "trainable": HEADS + adapters, "adapters_only": HEADS + adapters}
    assert free == {"total": TOTAL, "trainable": HEADS + adapters + REST, "adapters_only": HEADS + adapters}
    assert round((HEADS + adapters) / 1e6, 2) == alone
    assert round(100 * (HEADS + adapters) / TOTAL, 1) == alone_share
    assert round((HEADS + adapters + REST) / 1e6, 1) == with_rest
    assert round(100 * (HEADS + adapters + REST) / TOTAL, 1) == with_rest_share
