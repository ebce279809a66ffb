"""An adapter that peft saved, merged into its base; compared with peft's own merge."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel

from mtbert.errors import MtbertError
from mtbert.files import sha256_file
from mtbert.peft.published import encoder_from
from mtbert.pretrained.source import MINILM_PACKAGE, _minilm
from mtbert.pretrained.weights import from_hf

LAYERS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
SIZE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS = {
    "lora": {"target_modules": ["query", "value"]},
    "dora": {"target_modules": LAYERS, "use_dora": True},
    "rank-stabilised": {"target_modules": LAYERS, "use_rslora": True},
    "ranks": {"target_modules": LAYERS, "rank_pattern": {"query": 2}},
    "everything": {"target_modules": LAYERS, "bias": "all", "modules_to_save": ["word_embeddings", "LayerNorm"]},
    "classifier": {"target_modules": LAYERS, "task_type": "SEQ_CLS"},
}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., PeftModel]:
    """saved(config): a trained adapter in `adapter`, its base in `base`."""
    pytest.importorskip(MINILM_PACKAGE)

    def save(config: Any) -> PeftModel:
        kind = BertForSequenceClassification if config.task_type == "SEQ_CLS" else BertModel
        torch.manual_seed(1)
        base = kind(BertConfig(**SIZE))
        base.save_pretrained(tmp_path / "base")
        shutil.copyfile(_minilm() / "tokenizer.json", tmp_path / "base/tokenizer.json")
        model = get_peft_model(base, config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
        model.save_pretrained(tmp_path / "adapter")
        return model

    return save


def edit(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | keys), encoding="utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_merged_as_peft_merges_it(saved: Callable[..., PeftModel], tmp_path: Path, name: str) -> None:
    model = saved(LoraConfig(r=4, lora_alpha=8, **CONFIGS[name]))
    found = encoder_from("local", path=str(tmp_path / "adapter"))
    expected = from_hf(model.merge_and_unload().state_dict(), found.config, "")
    assert found.tensors.keys() == expected.keys()
    for tensor, value in expected.items():
        torch.testing.assert_close(found.tensors[tensor], value, atol=1e-6, rtol=0)
    assert found.tokenizer == (tmp_path / "base/tokenizer.json").read_bytes()
    assert found.source["name"] == "adapter"
    assert found.source["sha256"] == sha256_file(tmp_path / "adapter/adapter_model.safetensors")
    assert found.source["base"]["sha256"] == sha256_file(tmp_path / "base/model.safetensors")


def test_the_base_is_found_in_the_adapter_s_folder(saved: Callable[..., PeftModel], tmp_path: Path) -> None:
    saved(LoraConfig(target_modules=["query"]))
    path = str(tmp_path / "adapter")
    before = encoder_from("local", path=path)
    (tmp_path / "base").rename(tmp_path / "adapter/inner")
    with pytest.raises(
        MtbertError, match=r"adapter_config\.json: base_model_name_or_path is '.*/base', which is not a folder here"
    ):
        encoder_from("local", path=path)
    edit(tmp_path / "adapter/adapter_config.json", base_model_name_or_path="inner")
    after = encoder_from("local", path=path, sha256=before.source["sha256"])
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


def test_minilm_is_found_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip(MINILM_PACKAGE)
    save_file({}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 8, "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert encoder_from("local", path=str(tmp_path)).source["base"]["name"] == "all-MiniLM-L6-v2"


def test_what_is_refused(saved: Callable[..., PeftModel], tmp_path: Path) -> None:
    saved(LoraConfig(target_modules=["query"]))
    path, weights = tmp_path / "adapter/adapter_config.json", tmp_path / "adapter/adapter_model.safetensors"
    whole = path.read_text(encoding="utf-8")
    for keys, message in [
        ({"peft_type": "IA3"}, r"peft_type is 'IA3', and only LORA \(with DoRA\) is read; merge it with peft"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base's weights"),
        (
            {"lora_bias": True, "alpha_pattern": {"query": 2}},
            "uses alpha_pattern, lora_bias, which mtbert does not compute",
        ),
        ({"lora_alpha": None}, "lora_alpha is None, not a number"),
        ({"use_dora": True}, r"attention\.query\.weight: tensors do not fit the model: missing: magnitude"),
    ]:
        edit(path, **keys)
        with pytest.raises(MtbertError, match=message):
            encoder_from("local", path=str(tmp_path / "adapter"))
        path.write_text(whole, encoding="utf-8")
    with pytest.raises(MtbertError, match=r"adapter_model\.safetensors: sha256 is [0-9a-f]{64}, expected 0{64}"):
        encoder_from("local", path=str(tmp_path / "adapter"), sha256="0" * 64)
    save_file({**load_file(weights), "base_model.model.lora_embedding_A": torch.zeros(1)}, weights)
    with pytest.raises(MtbertError, match=r"unknown tensors: base_model\.model\.lora_embedding_A"):
        encoder_from("local", path=str(tmp_path / "adapter"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(MtbertError, match=r"adapter_config\.json: cannot be read"):
        encoder_from("local", path=str(tmp_path / "adapter"))


def test_another_kind_of_adapter_is_named(saved: Callable[..., PeftModel], tmp_path: Path) -> None:
    saved(IA3Config(target_modules=["query", "output.dense"], feedforward_modules=["output.dense"]))
    with pytest.raises(MtbertError, match="peft_type is 'IA3'"):
        encoder_from("local", path=str(tmp_path / "adapter"))
