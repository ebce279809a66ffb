"""config.json decides the family; what the family does not support is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.family import SizeKey
from mtbert.pretrained.registry import FAMILIES, read_hf_config

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


def test_a_published_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(THEIR_CONFIG), encoding="utf-8")
    assert read_hf_config(tmp_path / "config.json") == (BERT, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, r"config\.json: model_type is 'roberta', supported: bert; choose a BERT encoder"),
        ({"model_type": None}, r"model_type is None"),
        ({"hidden_act": "gelu_new"}, r"hidden_act is 'gelu_new', only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type is 'relative_key'"),
        ({"hidden_size": ...}, r"config\.json: hidden_size is missing"),
        ({"num_hidden_layers": 2.0}, r"config\.json: num_hidden_layers is 2\.0, not an integer of at least 1"),
        ({"vocab_size": "11"}, r"config\.json: vocab_size is '11', not an integer"),
        ({"intermediate_size": True}, r"config\.json: intermediate_size is True, not an integer"),
        ({"max_position_embeddings": 0}, r"config\.json: max_position_embeddings is 0, not an integer of at least 1"),
        ({"type_vocab_size": 1}, r"config\.json: type_vocab_size is 1, not an integer of at least 2"),
        ({"vocab_size": [[10**4000]]}, r"config\.json: vocab_size is .{,100}, not an integer"),
        ({"num_attention_heads": 10**4000}, r"config\.json: hidden_size is 4, not a multiple of .{,100}; the file"),
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
    ("absent", "defaults"),
    [
        (["model_type"], "model_type bert"),
        (["layer_norm_eps", "model_type"], "model_type bert, layer_norm_eps 1e-12"),
        (["hidden_act"], "hidden_act gelu"),
        (["position_embedding_type"], ""),  # few files have it
    ],
)
def test_missing_keys_get_bert_s_defaults_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], absent: list[str], defaults: str
) -> None:
    values = {name: value for name, value in THEIR_CONFIG.items() if name not in absent}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert read_hf_config(tmp_path / "config.json") == (BERT, CONFIG)
    note = f"note: {tmp_path}/config.json: keys are missing; using BERT's defaults: {defaults}\n"
    assert capsys.readouterr().err == (note if defaults else "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: not valid JSON"),
        ("[]", "config.json: holds a list, not a JSON object"),
        ('{"x": ' * 100_000 + "0" + "}" * 100_000, "config.json: nested too deeply; the file must be"),
        (f'{{"hidden_size": {"9" * 5000}}}', "config.json: not valid JSON: .*4300 digits.*; the file must be"),
    ],
)
def test_an_unreadable_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(MtbertError, match=message):
        read_hf_config(tmp_path / "config.json")


def test_a_second_family_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {"model_type": "other", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    sizes = {**BERT.sizes, "segments": SizeKey("segment_count", 2)}
    other = replace(BERT, name="OTHER", model_type="other", defaults=defaults, sizes=sizes)
    monkeypatch.setitem(FAMILIES, "other", other)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**THEIR_CONFIG, "model_type": "other", "segment_count": 2}), encoding="utf-8")
    assert read_hf_config(path) == (other, CONFIG)
    path.write_text(json.dumps({**THEIR_CONFIG, "model_type": "other"}), encoding="utf-8")
    with pytest.raises(MtbertError, match=r"segment_count is missing; the file must be a OTHER encoder's config\.json"):
        read_hf_config(path)
    path.write_text(json.dumps({**THEIR_CONFIG, "model_type": "roberta"}), encoding="utf-8")
    with pytest.raises(MtbertError, match=r"supported: bert, other; choose a BERT or OTHER encoder"):
        read_hf_config(path)
