"""peft loads an exported adapter onto its base, and `encoder.source: local` takes it back."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

import mtbert
from mtbert.errors import MtbertError
from mtbert.export.command import main
from mtbert.peft.published import encoder_from
from tests.export.conftest import DORA, LINEAR, LORA, PISSA, RSLORA, SAME, SENTENCES, SHARED, write_base

pytestmark = pytest.mark.filterwarnings("ignore::mtbert.LongInputWarning")


@pytest.mark.parametrize(
    ("adapter", "pooling"),
    [*product((DORA, LORA), ("cls", "mean")), (RSLORA, "mean"), (PISSA, "mean")],
    ids=lambda one: one["method"] if isinstance(one, dict) else one,
)
def test_peft_loads_it(made: Callable[..., Path], tmp_path: Path, pooling: str, adapter: dict[str, Any]) -> None:
    folder = made(pooling, SAME, adapter=adapter, corn=True, pair_size=6)
    write_base(tmp_path / "tiny-bert", spoil_what_trained=adapter["train_rest"])
    main(str(folder), tmp_path / "out", "peft")
    base = AutoModel.from_pretrained(tmp_path / "tiny-bert")
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(
        SENTENCES, padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(**inputs)
    mask = inputs["attention_mask"][:, :, None]
    u = output.pooler_output if pooling == "cls" else (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    ours = mtbert.load(folder, device="cpu", precision="fp32")
    np.testing.assert_allclose(u, ours.encode(SENTENCES), atol=1e-5)

    # What is in the folder is what was trained, and no more.
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    layers = 2 * 6 + (pooling == "cls")
    assert len(tensors) == (layers * 4 + 3 + 2 * 5 if adapter is DORA else layers * 2)
    heads = load_file(tmp_path / "out/heads.safetensors")
    state = ours.network.state_dict()
    assert torch.equal(heads["sts.weight"], state["heads.sts.linear.weight"])
    assert torch.equal(heads["pair_layer.weight"], state["pair_layer.linear.weight"])
    about = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "`pair_layer` and tanh come first" in about and "The logits of sst are those of P(y > k | y >= k)" in about

    config = json.loads((tmp_path / "out/adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "tiny-bert"
    config["base_model_name_or_path"] = "../tiny-bert"
    (tmp_path / "out/adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    back = encoder_from("local", path=str(tmp_path / "out"))
    for name, tensor in ours.network.encoder.state_dict().items():
        torch.testing.assert_close(back.tensors[name], tensor, atol=1e-6, rtol=0)


def test_what_peft_cannot_load_is_refused(made: Callable[..., Path], tmp_path: Path) -> None:
    cases = [
        (made("mean", LINEAR), None, "was fine-tuned in full and has no adapter; use --to transformers"),
        (made("mean", LINEAR, adapter=LORA), "sst", "--task: the adapter belongs to the encoder"),
        (made("mean", LINEAR, adapter={**LORA, "start_from": "best"}), None, "starts from the weights of the run best"),
        (
            made("mean", LINEAR, adapter=LORA, base={"name": "x", "seed": 1}),
            None,
            "starts from an encoder with random weights",
        ),
        (
            made("mean", LINEAR, adapter={**SHARED, "method": "ia3"}),
            None,
            "mtbert does not write ia3 in peft's format; use --to transformers, which writes the merged model",
        ),
        (made("mean", LINEAR, adapter=LORA, base={"name": "x", "base": {}}), None, "an encoder with a merged adapter"),
    ]
    for folder, task, message in cases:
        with pytest.raises(MtbertError, match=message):
            main(str(folder), tmp_path / "out", "peft", task)
    assert not list(tmp_path.iterdir())


def test_the_config_names_the_base_and_its_revision(made: Callable[..., Path], tmp_path: Path) -> None:
    base = {"name": "org/bert", "revision": "abc"}
    main(str(made("mean", LINEAR, adapter=LORA, base=base)), tmp_path / "out", "peft")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/bert", "abc")
