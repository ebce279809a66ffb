"""A model's folder is read back bit for bit, or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.pretrained.store import (
    MASKED_HEAD,
    load_masked_head,
    load_model,
    read_config,
    read_safetensors,
    save_masked_head,
    save_model,
)

TENSORS = {"a": torch.randn(5, 3), "b": torch.arange(6.0).view(2, 3).T}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path, TENSORS, {"encoder": {"layers": 2}, "note": "é"})
    return tmp_path


def test_round_trip(folder: Path) -> None:
    tensors, config = load_model(folder)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert (config["encoder"], config["note"]) == ({"layers": 2}, "é")
    assert read_config(folder) == config


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text(encoding="utf-8")[:-9], encoding="utf-8")


def binary_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")


def listed_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]", encoding="utf-8")


def unsigned_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def other_digit(folder: Path) -> None:
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace('"layers": 2', '"layers": 3'), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_digit, r"config\.json: damaged \(its content changed since it was written\)"),
        (flip, r"model\.safetensors: .*sha256"),
        (truncate, r"model\.safetensors: .*sha256"),
        (remove_weights, r"model\.safetensors: not found"),
        (remove_config, r"config\.json: not found"),
        (damage_config, r"config\.json: damaged"),
        (binary_config, r"config\.json: damaged"),
        (deep_config, r"config\.json: damaged"),
        (listed_config, r"config\.json: damaged \(no sha256 in it\)"),
        (unsigned_config, r"config\.json: damaged \(no sha256 in it\)"),
    ],
)
def test_damage_is_an_error_that_names_the_file(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(MtbertError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "dvc repro" in str(caught.value)


def test_safetensors_faults(tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match="a: not found"):
        read_safetensors(tmp_path / "a")
    for data in (b"", b"PK\x03\x04 a pickle, perhaps", b"\xff" * 64):
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(
            MtbertError, match=r"a: not a readable safetensors file \(.*; download or copy the file again$"
        ):
            read_safetensors(tmp_path / "a")


def test_a_head_for_masked_tokens_is_beside_its_encoder(tmp_path: Path) -> None:
    save_model(tmp_path, {"a": torch.ones(2)}, {})
    assert load_masked_head(tmp_path) is None
    save_model(tmp_path, {"a": torch.ones(2)}, save_masked_head(tmp_path, {"bias": torch.arange(3.0)}))
    head = load_masked_head(tmp_path)
    assert head is not None and torch.equal(head["bias"], torch.arange(3.0))
    with (tmp_path / MASKED_HEAD).open("ab") as file:
        file.write(b"x")
    with pytest.raises(MtbertError, match=r"masked_head\.safetensors: missing or changed since it was written"):
        load_masked_head(tmp_path)
