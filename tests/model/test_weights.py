"""Published weights are translated strictly: each fault is an error that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.model.weights import (
    LAYER_NAMES,
    TOP_NAMES,
    check_tensors,
    config_to_json,
    from_hf,
    random_weights,
    read_hf_config,
)

CONFIG = BertConfig(vocabulary=11, positions=7, layers=2, hidden=4, heads=2, intermediate=6)
THEIR_CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "vocab_size": 11,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "num_hidden_layers": 2,
    "hidden_size": 4,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "layer_norm_eps": 1e-12,
}


def published() -> dict[str, Tensor]:
    """Random weights of CONFIG under the published names."""
    ours = random_weights(CONFIG, 0)
    theirs = {name: ours[our] for name, our in TOP_NAMES.items()}
    for layer in range(CONFIG.layers):
        for name, our in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                theirs[f"encoder.layer.{layer}.{name}.{kind}"] = ours[f"layers.{layer}.{our}.{kind}"]
    return theirs


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_tensor_is_taken_over() -> None:
    assert same(from_hf(published(), CONFIG, "file"), random_weights(CONFIG, 0))


def test_the_prefix_old_norm_names_and_pretraining_heads() -> None:
    old = {f"bert.{name}": tensor for name, tensor in published().items()}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in old.items()
    }
    assert any("gamma" in name for name in old)
    old["cls.predictions.bias"] = torch.zeros(11)
    old["cls.predictions.transform.LayerNorm.gamma"] = torch.ones(4)
    old["cls.seq_relationship.weight"] = torch.zeros(2, 4)
    old["bert.embeddings.position_ids"] = torch.arange(7)[None]
    assert same(from_hf(old, CONFIG, "file"), random_weights(CONFIG, 0))


def test_half_precision_becomes_fp32() -> None:
    half = {name: tensor.half() for name, tensor in published().items()}
    assert {tensor.dtype for tensor in from_hf(half, CONFIG, "file").values()} == {torch.float32}


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["encoder.layer.1.output.dense.bias"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.layer.0.crossattention.self.query.weight"] = torch.zeros(4, 4)


def add_layer(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.layer.2.output.dense.bias"] = torch.zeros(4)


def transpose(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.layer.0.output.dense.weight"] = tensors["encoder.layer.0.output.dense.weight"].T


def nan(tensors: dict[str, Tensor]) -> None:
    tensors["pooler.dense.weight"][0, 0] = float("nan")


def infinite(tensors: dict[str, Tensor]) -> None:
    tensors["pooler.dense.bias"][3] = float("inf")


def integer(tensors: dict[str, Tensor]) -> None:
    tensors["pooler.dense.bias"] = torch.zeros(4, dtype=torch.int64)


def twice(tensors: dict[str, Tensor]) -> None:
    tensors["bert.pooler.dense.bias"] = torch.zeros(4)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop, r"x\.safetensors: tensors do not fit the model: missing: layers\.1\.feed_forward\.down\.bias"),
        (add, r"x\.safetensors: unknown tensors: encoder\.layer\.0\.crossattention\.self\.query\.weight"),
        (add_layer, r"x\.safetensors: .*unknown: layers\.2\.feed_forward\.down\.bias"),
        (transpose, r"layers\.0\.feed_forward\.down\.weight has shape \(6, 4\), expected \(4, 6\)"),
        (nan, r"pooler\.weight holds NaN or infinity"),
        (infinite, r"pooler\.bias holds NaN or infinity"),
        (integer, r"pooler\.bias is torch\.int64, expected float32"),
        (twice, r"bert\.pooler\.dense\.bias stands in the file under two names"),
    ],
)
def test_a_faulty_checkpoint_is_refused(fault: Callable[[dict[str, Tensor]], None], message: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in published().items()}
    fault(tensors)
    with pytest.raises(MtbertError, match=message):
        from_hf(tensors, CONFIG, "x.safetensors")


def test_check_tensors_accepts_what_fits_and_nothing_else() -> None:
    shapes = {"a": (2,), "b": (1, 3)}
    good = {"a": torch.zeros(2), "b": torch.zeros(1, 3)}
    check_tensors(good, shapes, "file")
    for bad, message in (
        ({"a": torch.zeros(2)}, "file: .*missing: b"),
        ({**good, "c": torch.zeros(1)}, "file: .*unknown: c"),
        ({**good, "b": torch.zeros(3)}, r"file: b has shape \(3,\), expected \(1, 3\)"),
        ({**good, "a": torch.zeros(2, dtype=torch.float64)}, "file: a is torch.float64, expected float32"),
    ):
        with pytest.raises(MtbertError, match=message):
            check_tensors(bad, shapes, "file")


def test_config_of_the_published_form(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(THEIR_CONFIG), encoding="utf-8")
    assert read_hf_config(tmp_path / "config.json") == CONFIG
    assert BertConfig(**config_to_json(CONFIG)) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, r"config\.json: model_type is 'roberta', only 'bert' is supported"),
        ({"model_type": None}, r"model_type is None"),
        ({"hidden_act": "gelu_new"}, r"hidden_act is 'gelu_new', only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type is 'relative_key'"),
        ({"hidden_size": ...}, r"config\.json: hidden_size is missing"),
        ({"layer_norm_eps": ...}, r"config\.json: layer_norm_eps is missing"),
        ({"num_hidden_layers": 2.0}, r"config\.json: num_hidden_layers is 2\.0, not an integer of at least 1"),
        ({"vocab_size": "11"}, r"config\.json: vocab_size is '11', not an integer"),
        ({"intermediate_size": True}, r"config\.json: intermediate_size is True, not an integer"),
        ({"max_position_embeddings": 0}, r"config\.json: max_position_embeddings is 0, not an integer of at least 1"),
        ({"type_vocab_size": 1}, r"config\.json: type_vocab_size is 1, not an integer of at least 2"),
        ({"num_attention_heads": 3}, r"config\.json: hidden_size is 4, not a multiple of num_attention_heads \(3\)"),
        ({"layer_norm_eps": "1e-12"}, r"config\.json: layer_norm_eps is '1e-12', not a small positive number"),
    ],
)
def test_other_architectures_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = {name: value for name, value in {**THEIR_CONFIG, **change}.items() if value is not ...}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(MtbertError, match=message):
        read_hf_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "config.json: not found"),
        ("{", "config.json: not valid JSON"),
        ("[]", "config.json: holds a list, not a JSON object"),
    ],
)
def test_an_unreadable_config_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(MtbertError, match=message):
        read_hf_config(tmp_path / "config.json")


def test_random_weights_are_a_function_of_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first = random_weights(CONFIG, 3)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    torch.rand(5)
    assert same(random_weights(CONFIG, 3), first)
    assert not same(random_weights(CONFIG, 4), first)
