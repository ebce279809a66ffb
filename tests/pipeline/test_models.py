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
    model = load_run(load_params().run("baseline"), "baseline")
    tensors, _ = load_model(project / "models/baseline")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_other_settings_are_named(project: Path, change: Callable[..., None]) -> None:
    change(baseline={"learning_rate": 0.5, "seed": 3})
    with pytest.raises(
        MtbertError,
        match=r"baseline: was trained with other settings \(seed, learning_rate\); run `dvc repro train@baseline`",
    ):
        load_run(load_params().run("baseline"), "baseline")


def test_a_run_with_an_adapter_keeps_what_it_trained(project: Path, tmp_path: Path) -> None:
    convert.main("dora_r4")
    train.main("dora_r4")
    run = load_params().run("dora_r4")
    model = load_run(run, "dora_r4")
    tensors, _ = load_model(project / "models/dora_r4")
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert tensors.keys() == model.state_dict().keys() - frozen
    assert frozen and all(name.endswith(".weight") and ".layers." in name for name in frozen)
    pretrained, _ = load_model(project / "models/pretrained")
    state = model.state_dict()
    assert all(torch.equal(state[name], pretrained[name.removeprefix("encoder.")]) for name in frozen)

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
