"""A model is loaded only with the settings that it was trained with."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mtbert
from mtbert.errors import MtbertError
from mtbert.params import load_params
from mtbert.pipeline.models import load_run
from mtbert.pretrained.store import load_model, save_model
from stages import convert, train


def test_the_trained_weights_are_loaded(project: Path) -> None:
    model = load_run(load_params().runs["baseline"], "baseline")
    tensors, _ = load_model(project / "models/baseline")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_other_settings_are_named(project: Path, change: Callable[..., None]) -> None:
    change(baseline={"learning_rate": 0.5, "seed": 3})
    with pytest.raises(
        MtbertError,
        match=r"baseline: was trained with other settings \(seed, learning_rate\); run `dvc repro train@baseline`",
    ):
        load_run(load_params().runs["baseline"], "baseline")


def test_a_run_with_an_adapter_needs_its_base_beside_it(project: Path, tmp_path: Path) -> None:
    convert.main("dora_r4")
    train.main("dora_r4")
    pretrained, _ = load_model(project / "models/pretrained")
    alone = shutil.copytree(project / "models/dora_r4", tmp_path / "elsewhere/dora_r4")
    place = tmp_path / "elsewhere/pretrained"
    with pytest.raises(
        MtbertError, match=rf"holds only the parameters that were trained.*\(not found\); copy .* to {place}"
    ):
        mtbert.load(alone)
    shutil.copytree(project / "models/pretrained", place)
    assert mtbert.load(alone, device="cpu").predict("sst", ["fine"]) == mtbert.load("dora_r4", device="cpu").predict(
        "sst", ["fine"]
    )
    save_model(place, pretrained | {"embeddings.norm.bias": pretrained["embeddings.norm.bias"] + 1}, {"encoder": {}})
    with pytest.raises(MtbertError, match=r"expected in .*pretrained \(other weights, sha256 "):
        mtbert.load(alone)
