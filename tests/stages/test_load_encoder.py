"""Loading the encoder stage's weights into a run's model: the pooler only for cls pooling, everything else strictly."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.pipeline.models import load_encoder
from mtbert.pipeline.paths import PRETRAINED
from mtbert.pretrained.store import save_model
from mtbert.pretrained.weights import POOLER, random_weights
from mtbert.settings.run import Model

Save = Callable[[set[str]], dict[str, torch.Tensor]]
CONFIG = BertConfig(vocabulary=11, positions=7, layers=1, hidden=4, heads=2, intermediate=6)


def run(pooling: str) -> Model:
    heads = {"sst": {"objective": "cross_entropy", "features": ["u"]}}
    settings = {"seed": 1, "pooling": pooling, "encoding": "bi", "encoder_dropout": 0.1, "head_dropout": 0.3}
    return Model.model_validate({**settings, "heads": heads})


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """save(names): write the encoder stage's output without these tensors, in the test's working directory."""
    monkeypatch.chdir(tmp_path)

    def write(without: set[str]) -> dict[str, torch.Tensor]:
        tensors = {name: tensor for name, tensor in random_weights(CONFIG, 0).items() if name not in without}
        save_model(PRETRAINED, tensors, {"encoder": asdict(CONFIG)})
        return tensors

    return write


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("without", [set(), POOLER], ids=["with a pooler", "without"])
def test_only_cls_pooling_has_a_pooler(save: Save, pooling: str, without: set[str]) -> None:
    tensors = save(without)
    if pooling == "cls" and without:
        with pytest.raises(
            MtbertError, match=r"^params\.yaml: runs\.mine\.pooling is cls, but .*model\.safetensors has no pooler"
        ):
            load_encoder(run(pooling), "runs.mine")
        return
    found = load_encoder(run(pooling), "runs.mine").encoder.state_dict()
    assert found.keys() == (tensors.keys() if pooling == "cls" else tensors.keys() - POOLER)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


def test_everything_else_must_be_present(save: Save) -> None:
    save({"embeddings.norm.bias"})
    with pytest.raises(MtbertError, match=r"missing: embeddings\.norm\.bias"):
        load_encoder(run("mean"), "runs.mine")
