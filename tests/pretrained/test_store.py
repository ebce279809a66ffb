"""A model's folder is read back bit for bit, or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.pretrained.store import (
    CONFIG,
    MASKED_HEAD,
    WEIGHTS,
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


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            CONFIG,
            lambda data: data.replace(b'"layers": 2', b'"layers": 3'),
            r"its content changed since it was written\)",
        ),
        (CONFIG, lambda data: data[:-9], ""),
        (CONFIG, lambda _: b"\xff\xfe\x00", ""),
        (CONFIG, lambda _: b"[" * 100_000 + b"]" * 100_000, ""),
        (CONFIG, lambda _: b"[]", r"no sha256 in it\)"),
        (CONFIG, lambda data: data.replace(b'"sha256"', b'"md5"'), r"no sha256 in it\)"),
        (WEIGHTS, lambda data: data[:-1] + bytes([data[-1] ^ 1]), ""),
        (WEIGHTS, lambda data: data[:-4], ""),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    what = rf"damaged \({message}" if name == CONFIG else r"its bytes changed since it was written \(sha256 differs\)"
    with pytest.raises(MtbertError, match=rf"^{folder / name}: {what}.*; run `dvc repro"):
        load_model(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MtbertError, match=rf"^{folder / name}: not found; run `dvc repro"):
        load_model(folder)


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
