"""A model whose predictions depend on every word: those of an untrained encoder hardly do, and would hide a mix-up."""

import shutil
from pathlib import Path

import pytest

import mtbert
from mtbert.inference.model import TaskInfo
from mtbert.pretrained.store import load_model, save_model

SINGLE = TaskInfo("sst", "classes", 1, ("sentence",), ("bad", "good"), None, None)
PAIR = TaskInfo("sts", "score", 2, ("sentence1", "sentence2"), (), 0, 5)


def make_vivid(folder: Path) -> None:
    """Scale all matrices up."""
    tensors, config = load_model(folder)
    config.pop("sha256")
    save_model(folder, {name: 30 * tensor if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}, config)


@pytest.fixture(scope="session")
def vivid(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models/baseline and nothing else."""
    folder = tmp_path_factory.mktemp("vivid")
    shutil.copytree(trained / "models/baseline", folder / "models/baseline")
    make_vivid(folder / "models/baseline")
    return folder


@pytest.fixture(scope="session")
def model(vivid: Path) -> mtbert.TrainedModel:
    return mtbert.load(vivid / "models/baseline", device="cpu", precision="fp32")
