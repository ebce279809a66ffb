"""Damaged or inconsistent arrays are errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.data.arrays import Split, held_out_rows, hold_out, load_split, rows_of
from mtbert.errors import MtbertError
from mtbert.tasks.paper import TASKS


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "data/prepared/dev/quora"
    folder.mkdir(parents=True)
    np.save(folder / "ids1.npy", np.array([5, 6, 7], dtype=np.uint16))
    np.save(folder / "offsets1.npy", np.array([0, 2, 3]))
    np.save(folder / "ids2.npy", np.array([8, 9], dtype=np.uint16))
    np.save(folder / "offsets2.npy", np.array([0, 1, 2]))
    np.save(folder / "labels.npy", np.array([0, 1], dtype=np.float32))
    (folder / "examples.csv").write_text("id,sentence1,sentence2,label\nNA,one,None,0\nb,two,,1\n")
    return tmp_path / "data/prepared"


def test_arrays_are_memory_mapped(prepared: Path) -> None:
    split = load_split(prepared, TASKS["quora"], "dev")
    assert (len(split), split.task, split.split) == (2, "quora", "dev")
    assert isinstance(split.ids1, np.memmap) and split.ids1.tolist() == [5, 6, 7]
    assert split.ids2 is not None and split.labels is not None
    assert split.example_table().to_numpy().tolist() == [["NA", "one", "None", "0"], ["b", "two", "", "1"]]


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("ids1", np.array([5, 6, 7]), "int64 of shape (3,), expected one axis of uint16"),
        ("ids2", np.array([[8, 9]], dtype=np.uint16), "uint16 of shape (1, 2), expected one axis of uint16"),
        ("offsets1", np.array([0, 2, 4]), "does not run from 0 to the 3 wordpieces of ids1.npy"),
        ("offsets1", np.array([1, 2, 3]), "does not run from 0 to the 3 wordpieces of ids1.npy"),
        ("offsets1", np.array([0]), "does not run from 0 to the 3 wordpieces of ids1.npy"),
        ("offsets1", np.array([0, 3, 3]), "row 1 has no wordpiece"),
        ("offsets2", np.array([0, 3, 2]), "row 1 has no wordpiece"),
        ("offsets2", np.array([0, 2]), "1 rows where offsets1.npy has 2"),
        ("labels", np.array([0], dtype=np.float32), "1 labels for 2 rows"),
        ("labels", np.array([0, 2], dtype=np.float32), "row 1 has label 2, which quora cannot have"),
        ("labels", np.array([0.5, 1], dtype=np.float32), "row 0 has label 0.5, which quora cannot have"),
        ("labels", np.array([np.nan, 1], dtype=np.float32), "row 0 has label nan, which quora cannot have"),
        ("labels", np.array([0.0, 1.0]), "float64 of shape (2,), expected one axis of float32"),
    ],
)
def test_inconsistent_files_are_named(prepared: Path, name: str, array: Any, what: str) -> None:
    path = prepared / "dev" / "quora" / f"{name}.npy"
    np.save(path, array)
    with pytest.raises(MtbertError) as error:
        load_split(prepared, TASKS["quora"], "dev")
    assert str(error.value) == f"{path}: {what}; run `dvc repro -f -s prepare`, then `dvc repro`"


@pytest.mark.parametrize("name", ["ids1", "offsets1", "ids2", "offsets2", "labels"])
@pytest.mark.parametrize("size", [0, 20, 129])
def test_truncated_files_are_named(prepared: Path, name: str, size: int) -> None:
    path = prepared / "dev" / "quora" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MtbertError, match=f"{name}.npy: not a readable array"):
        load_split(prepared, TASKS["quora"], "dev")


def test_missing_files(prepared: Path) -> None:
    with pytest.raises(MtbertError, match=r"dev/sts/ids1.npy: not found; run `dvc repro prepare`$"):
        load_split(prepared, TASKS["sts"], "dev")
    folder = prepared / "dev" / "quora"
    (folder / "labels.npy").unlink()
    split = load_split(prepared, TASKS["quora"], "dev")
    assert split.labels is None
    (folder / "examples.csv").write_text("id,sentence1,label\na,b,c\n")
    with pytest.raises(
        MtbertError, match=r"examples.csv: has 1 rows of id, sentence1, label, expected 2 of id, sentence1, sentence2"
    ):
        split.example_table()
    (folder / "examples.csv").unlink()
    with pytest.raises(MtbertError, match=r"examples.csv: cannot be read"):
        split.example_table()


@given(st.data())
def test_rows_of_a_split(make_split: Callable[..., Split], data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(["sst", "sts"]))
    split = make_split(task, data.draw(st.integers(2, 12)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(split) - 1), min_size=1, max_size=15)))
    found = rows_of(split, rows)
    assert len(found) == len(rows)
    for place, row in enumerate(rows):
        for ids, offsets in (("ids1", "offsets1"), ("ids2", "offsets2"))[: 2 if task == "sts" else 1]:
            one, other = (
                getattr(part, ids)[getattr(part, offsets)[at] : getattr(part, offsets)[at + 1]]
                for part, at in ((found, place), (split, row))
            )
            assert one.tolist() == other.tolist()
    assert split.labels is not None and found.labels is not None
    assert found.labels.tolist() == split.labels[rows].tolist()


def test_of_one_row_none_is_held_out(make_split: Callable[..., Split]) -> None:
    with pytest.raises(MtbertError, match=r"optimization\.hold_out: sst has one training example"):
        hold_out(make_split("sst", 1), 0.1, 0)


@given(st.integers(2, 40), st.floats(0.001, 0.999), st.integers(0, 3))
def test_held_out_rows_are_not_trained_on(make_split: Callable[..., Split], size: int, share: float, seed: int) -> None:
    split = make_split("sst", size)
    split = replace(split, labels=np.arange(size, dtype=np.float32))
    kept, held = hold_out(split, share, seed)
    assert kept.labels is not None and held.labels is not None
    assert sorted([*kept.labels, *held.labels]) == list(range(size)) and len(kept) and len(held)
    assert len(held) == held_out_rows(size, share) and abs(len(held) - share * size) <= 1
