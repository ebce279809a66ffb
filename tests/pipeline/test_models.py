"""A model is loaded only with the settings that it was trained with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.params import load_params
from mtbert.pipeline.models import load_run
from mtbert.pretrained.store import load_model


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
