"""A sealed folder: any changed, missing or cut file is named, and so is a damaged list."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.seal import SEAL, check_seal, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.csv").write_bytes(b"abc\n")
    (tmp_path / "inner/b.npy").write_bytes(b"\x00" * 100)
    seal(tmp_path)
    return tmp_path


def flip(folder: Path) -> None:
    data = bytearray((folder / "inner/b.npy").read_bytes())
    data[50] ^= 1
    (folder / "inner/b.npy").write_bytes(data)


def remove(folder: Path) -> None:
    (folder / "inner/b.npy").unlink()


def list_damaged(folder: Path) -> None:
    (folder / SEAL).write_text("[]", encoding="utf-8")


def list_cut(folder: Path) -> None:
    (folder / SEAL).write_bytes((folder / SEAL).read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"inner/b\.npy: its bytes changed since it was written"),
        (remove, r"inner/b\.npy: not found"),
        (list_damaged, r"sha256\.json: damaged \(not a JSON object\)"),
        (list_cut, r"sha256\.json: damaged"),
    ],
)
def test_a_change_is_named_with_the_remedy(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    check_seal(folder)
    damage(folder)
    with pytest.raises(MtbertError, match=message) as caught:
        check_seal(folder, stage="prepare")
    assert str(caught.value).endswith(f"; run `dvc repro --force --single-item prepare` to write {folder} anew")


def test_only_named_files_are_sealed(folder: Path) -> None:
    seal(folder, "a.csv")
    flip(folder)
    check_seal(folder)
    (folder / "a.csv").write_bytes(b"")
    with pytest.raises(MtbertError, match=r"a\.csv: its bytes changed"):
        check_seal(folder)


def test_only_named_files_are_compared(folder: Path) -> None:
    flip(folder)
    check_seal(folder, "a.csv")
    with pytest.raises(MtbertError, match=r"b\.npy"):
        check_seal(folder, "a.csv", "inner/b.npy")
    with pytest.raises(MtbertError, match=r"other\.csv: not found"):
        check_seal(folder, "other.csv")


def test_a_folder_made_by_hand_passes(tmp_path: Path) -> None:
    check_seal(tmp_path)
