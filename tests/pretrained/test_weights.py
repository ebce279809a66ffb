"""Published weights are translated strictly: each fault is an error that names it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.model.masked import MaskedTokenHead
from mtbert.pretrained.bert import BERT, LAYER_NAMES, NAMES
from mtbert.pretrained.checks import check_tensors
from mtbert.pretrained.weights import (
    for_pooling,
    from_hf,
    masked_head_from_hf,
    parameter_count,
    random_weights,
    to_hf,
)
from tests.pretrained.test_registry import CONFIG, THEIR_CONFIG


def published() -> dict[str, Tensor]:
    """Random weights of CONFIG under the published names."""
    ours = random_weights(CONFIG, 0)
    theirs = {name: ours[our] for name, our in NAMES.items()}
    for layer in range(CONFIG.layers):
        for name, our in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                theirs[f"encoder.layer.{layer}.{name}.{kind}"] = ours[f"layers.{layer}.{our}.{kind}"]
    return theirs


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_tensor_is_translated() -> None:
    assert same(from_hf(published(), CONFIG, "file"), random_weights(CONFIG, 0))


def test_and_back() -> None:
    assert same(to_hf(random_weights(CONFIG, 0)), published())
    assert BERT.read_config(BERT.written_config(CONFIG), Path("config.json")) == CONFIG


def test_the_prefix_old_norm_names_and_task_heads(capsys: pytest.CaptureFixture[str]) -> None:
    old = {f"bert.{name}": tensor for name, tensor in published().items()}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in old.items()
    }
    assert any("gamma" in name for name in old)
    old["bert.embeddings.position_ids"] = torch.arange(7)[None]
    assert same(from_hf(old, CONFIG, "file"), random_weights(CONFIG, 0))
    assert not capsys.readouterr().err
    old["cls.predictions.bias"] = torch.zeros(11)
    old["cls.predictions.transform.LayerNorm.gamma"] = torch.ones(4)
    old["cls.seq_relationship.weight"] = torch.zeros(2, 4)
    old["classifier.weight"] = torch.zeros(3, 4)
    old["classifier.bias"] = torch.zeros(3)
    old["qa_outputs.weight"] = torch.zeros(2, 4)
    assert same(from_hf(old, CONFIG, "file"), random_weights(CONFIG, 0))
    assert capsys.readouterr().err == (
        "note: file: ignored heads of other tasks: classifier.bias, classifier.weight, cls.predictions.bias, "
        "cls.predictions.transform.LayerNorm.gamma, cls.seq_relationship.weight and 1 more\n"
    )


def test_only_cls_pooling_needs_the_pooler(capsys: pytest.CaptureFixture[str]) -> None:
    whole = from_hf(published(), CONFIG, "file")
    bare = from_hf({name: tensor for name, tensor in published().items() if "pooler" not in name}, CONFIG, "file")
    assert "note: file: has no pooler" in capsys.readouterr().err
    assert whole.keys() - bare.keys() == {"pooler.weight", "pooler.bias"}
    assert same(for_pooling(whole, "cls", "file"), whole)
    for pooling in ("mean", "max"):
        for tensors in (whole, bare):
            assert same(for_pooling(tensors, pooling, "file"), bare)
    with pytest.raises(
        MtbertError, match=r"^pooling is cls, but file has no pooler.*set pooling to mean or max, or choose an"
    ):
        for_pooling(bare, "cls", "file")


@pytest.mark.parametrize(
    "kind",
    [
        "PreTraining",
        "MaskedLM",
        "NextSentencePrediction",
        "SequenceClassification",
        "TokenClassification",
        "QuestionAnswering",
    ],
)
def test_the_encoder_of_every_bert_model_of_transformers_is_found(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, f"BertFor{kind}")(transformers.BertConfig(**THEIR_CONFIG))
    assert same(from_hf(theirs.state_dict(), CONFIG, "file"), from_hf(theirs.bert.state_dict(), CONFIG, "file"))


def test_a_head_for_masked_tokens_is_kept_apart() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**THEIR_CONFIG))
    head = MaskedTokenHead(CONFIG, 0)
    head.load_state_dict(masked_head_from_hf(theirs.state_dict(), CONFIG, "file") or {})
    states, table = torch.randn(3, CONFIG.hidden), theirs.bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(head(states, table), theirs.cls(states))
    assert masked_head_from_hf(theirs.bert.state_dict(), CONFIG, "file") is None


def test_half_precision_becomes_fp32() -> None:
    half = {name: tensor.half() for name, tensor in published().items()}
    assert {tensor.dtype for tensor in from_hf(half, CONFIG, "file").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (
            "encoder.layer.1.output.dense.bias",
            None,
            r"tensors do not fit the model: missing: layers\.1\.feed_forward\.down\.bias",
        ),
        (
            "encoder.layer.0.crossattention.self.query.weight",
            torch.zeros(4, 4),
            r"unknown tensors: encoder\.layer\.0\.crossattention\.self\.query\.weight",
        ),
        (
            "encoder.layer.2.output.dense.bias",
            torch.zeros(4),
            r"layers found: 3, but num_hidden_layers in its config\.json is 2; use the config\.json",
        ),
        ("pooler.dense.bias", None, r"tensors do not fit the model: missing: pooler\.bias"),
        ("embeddings.word_embeddings.weight", None, r"embeddings\.token\.weight is missing"),
        ("embeddings.position_embeddings.weight", torch.zeros(7), r"embeddings\.position\.weight has shape \(7,\)"),
        (
            "encoder.layer.0.output.dense.weight",
            torch.zeros(6, 4),
            r"layers\.0\.feed_forward\.down\.weight has shape \(6, 4\), expected \(4, 6\)",
        ),
        (
            "pooler.dense.weight",
            torch.diag(torch.tensor([1, 1, torch.nan, 1])),
            r"pooler\.weight holds NaN or infinity",
        ),
        ("pooler.dense.bias", torch.tensor([0, 0, 0, torch.inf]), r"pooler\.bias holds NaN or infinity"),
        ("pooler.dense.bias", torch.zeros(4, dtype=torch.int64), r"pooler\.bias is torch\.int64, expected float32"),
        ("bert.pooler.dense.bias", torch.zeros(4), r"has bert\.pooler\.dense\.bias under two names"),
    ],
)
def test_a_faulty_checkpoint_is_refused(name: str, tensor: Tensor | None, message: str) -> None:
    """One tensor is missing (None), added or another one."""
    tensors = {**published(), name: tensor}
    with pytest.raises(MtbertError, match=rf"^x\.safetensors: {message}"):
        from_hf({key: value for key, value in tensors.items() if value is not None}, CONFIG, "x.safetensors")


def test_tensors_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(MtbertError, match=r"^file: tensors .*: unknown: b; download or copy the file again$"):
        check_tensors({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": (2,)}, "file")


# Making such a model would take too much memory or time, or overflow torch's sizes.
@pytest.mark.parametrize("value", [10**5, 10**12, 10**30])
@pytest.mark.parametrize("size", sorted(BERT.sizes.keys() - {"heads"}))
def test_sizes_that_are_not_those_of_the_tensors_are_refused_at_once(size: str, value: int) -> None:
    key = BERT.sizes[size].key
    with pytest.raises(MtbertError, match=rf"^x\.safetensors: .*, but {key} in its config\.json is {value}; use the"):
        from_hf(published(), replace(CONFIG, **{size: value}), "x.safetensors")


def test_parameters_are_counted_without_making_them() -> None:
    for config in (
        CONFIG,
        BertConfig(vocabulary=5, positions=8, segments=3, layers=3, hidden=6, heads=1, intermediate=4),
    ):
        assert parameter_count(config) == sum(tensor.numel() for tensor in random_weights(config, 0).values())


def test_random_weights_are_a_function_of_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first = random_weights(CONFIG, 3)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    torch.rand(5)
    assert same(random_weights(CONFIG, 3), first)
    assert not same(random_weights(CONFIG, 4), first)
