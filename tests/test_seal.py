"""A sealed folder: a changed, missing or truncated file is named, and so is a damaged sha256.json."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.seal import SEAL, check_seal, remedy, seal, sealed, stage_of, unsealed


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


def list_removed(folder: Path) -> None:
    (folder / SEAL).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"inner/b\.npy: its bytes changed since it was written"),
        (remove, r"inner/b\.npy: not found"),
        (list_damaged, r"sha256\.json: damaged \(not a JSON object\)"),
        (list_cut, r"sha256\.json: damaged"),
        (list_removed, r"sha256\.json: not found"),
    ],
)
def test_a_change_is_named_with_the_remedy(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    check_seal(folder)
    damage(folder)
    with pytest.raises(MtbertError, match=message) as caught:
        check_seal(folder)
    assert re.search(r"; run `dvc repro( -f -s)? STAGE`, where STAGE is the stage that writes ", str(caught.value))


def test_only_named_files_are_verified(folder: Path) -> None:
    flip(folder)
    check_seal(folder, "a.csv")
    with pytest.raises(MtbertError, match=r"b\.npy"):
        check_seal(folder, "a.csv", "inner/b.npy")
    with pytest.raises(MtbertError, match=r"other\.csv: not found"):
        check_seal(folder, "other.csv")


@pytest.mark.parametrize(
    ("folder", "stage"),
    [
        ("data/raw", "fetch"),
        ("data/prepared", "prepare"),
        ("models/pretrained", "encoder"),
        ("models/converted/dora_r4", "convert@dora_r4"),
        ("models/dora_r4", "train@dora_r4"),
        ("results/raw_cosine", "evaluate@raw_cosine"),
    ],
)
def test_the_remedy_names_the_stage_that_writes_the_folder(folder: str, stage: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert remedy(Path(folder)) == f"run `dvc repro {stage}`"
    assert remedy(Path(folder), tmp_path / "x") == f"run `dvc repro -f -s {stage}`, then `dvc repro`"


def test_the_remedy_in_a_study_names_its_own_stages(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = YAML(typ="safe").load(root / "studies/study.yaml")["stages"]
    (tmp_path / "study").mkdir()
    (tmp_path / "study.yaml").touch()
    monkeypatch.chdir(tmp_path / "study")
    for folder in ("data/prepared/train", "models/pretrained", "models/converted/mine", "models/mine", "results/mine"):
        assert stage_of(Path(folder)).partition("@")[0] in graph
    assert stage_of(Path("models/converted/mine")) == "train@mine"


def dvc(*arguments: str) -> None:
    subprocess.run([Path(sys.executable).with_name("dvc"), *arguments], check=True, capture_output=True)


DVC_YAML = """
stages:
  fetch:
    cmd: python make.py fetch data/raw
    outs: [data/raw]
  prepare:
    cmd: python make.py prepare data/prepared
    deps: [data/raw]
    outs: [data/prepared]
"""
MAKE = """
import sys
from pathlib import Path
from mtbert.seal import seal
with open("ran", "a") as log: log.write(sys.argv[1] + " ")
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
(folder / "a.csv").write_text("some text of " + sys.argv[1])
seal(folder)
"""


@pytest.mark.parametrize("where", ["the output", "the cache", "the cache and its links"])
def test_the_remedy_works_when_pasted(where: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file in an output, and a changed object in the cache, which DVC restores; with the old mtime, so DVC sees neither."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "make.py").write_text(MAKE)
    (tmp_path / ".dvc").mkdir()  # as `dvc init` and `dvc config` leave it
    config = (
        f'[core]\n    no_scm = True\n    site_cache_dir = {tmp_path / "site"}\n[cache]\n    type = "hardlink,copy"\n'
    )
    (tmp_path / ".dvc/config").write_text(config, encoding="utf-8")
    dvc("repro")
    file, sound = Path("data/prepared/a.csv"), b"some text of prepare"
    (stored,) = [path for path in Path(".dvc/cache").rglob("*") if path.is_file() and path.read_bytes() == sound]
    about = (stored if "cache" in where else file).stat()
    damaged = stored if "cache" in where else file
    damaged.chmod(0o644)
    damaged.write_bytes(b"some text Of prepare")
    os.utime(damaged, ns=(about.st_atime_ns, about.st_mtime_ns))
    damaged.chmod(about.st_mode)
    if "cache" in where:
        shutil.rmtree("data/prepared")
        dvc("checkout", "data/prepared")
        if where == "the cache":  # a copy of it
            data = file.read_bytes()
            file.unlink()
            file.write_bytes(data)
    with pytest.raises(MtbertError, match=r"a\.csv: its bytes changed") as caught:
        check_seal(Path("data/prepared"))
    Path("ran").unlink()
    remedies = str(caught.value).partition("; ")[2]
    for step in re.fullmatch(
        r"(?:remove (\S+), its .* cache, then )?run `dvc (.*?)`, then `dvc (.*)`", remedies
    ).groups():  # type: ignore[union-attr]
        if step and step.startswith("."):
            Path(step).unlink()
        elif step:
            dvc(*step.split())
    assert Path("ran").read_text() == "prepare ", "and nothing else"
    check_seal(Path("data/prepared"))
    shutil.rmtree("data/prepared")
    dvc("checkout")
    check_seal(Path("data/prepared"))
    assert file.read_bytes() == sound


def test_the_order_in_which_files_are_listed_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, listed = (folder / SEAL).read_bytes(), Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda *arguments: reversed(list(listed(*arguments))))
    seal(folder)
    assert (folder / SEAL).read_bytes() == before


def test_the_order_of_an_object_s_keys_does_not_count() -> None:
    value = {"b": 1, "a": {"d": 2, "c": 3}}
    assert unsealed(dict(reversed(sealed(value).items()))) == value
