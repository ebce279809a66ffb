"""Prepared splits as memory-mapped arrays of wordpieces. Shapes: R rows, W wordpieces in the split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtbert.errors import MtbertError
from mtbert.seal import check_seal, remedy
from mtbert.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Split:
    """One split of one task.

    Attributes:
        task, split: their names.
        folder: the folder of the arrays.
        ids1: (W,) uint16, wordpieces of the first sentences end to end, without special tokens.
        offsets1: (R + 1,) int64; row r is ids1[offsets1[r]:offsets1[r + 1]], at least one wordpiece.
        ids2, offsets2: the same for the second sentences; None for a single-sentence task.
        labels: (R,) float32, or None where the split is unlabelled.
    """

    task: str
    split: str
    folder: Path
    ids1: np.ndarray
    offsets1: np.ndarray
    ids2: np.ndarray | None
    offsets2: np.ndarray | None
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.offsets1) - 1

    def example_table(self) -> "pd.DataFrame":
        """The original text in the order of the arrays: id, sentence1[, sentence2], label (empty if unlabelled), all str."""
        import pandas as pd

        path = self.folder / "examples.csv"
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", lineterminator="\n")
        except (OSError, ValueError) as error:
            raise MtbertError(f"{path}: cannot be read ({error}); {_again(path)}") from None
        columns = ["id", "sentence1", *(["sentence2"] if self.ids2 is not None else []), "label"]
        if list(table.columns) != columns or len(table) != len(self):
            found = f"{len(table)} rows of {', '.join(table.columns)}"
            raise MtbertError(f"{path}: has {found}, expected {len(self)} of {', '.join(columns)}; {_again(path)}")
        return table


def split_of(
    task: str,
    split: str,
    folder: Path,
    sides: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray | None = None,
) -> Split:
    """A split in memory.

    Args:
        sides: for each sentence of the examples, all wordpieces end to end, (W,) uint16, and their number by row, (R,).
    """
    arrays = [(ids, np.concatenate(([0], np.cumsum(lengths)))) for ids, lengths in sides]
    ids2, offsets2 = arrays[1] if len(arrays) == 2 else (None, None)
    return Split(task, split, folder, *arrays[0], ids2, offsets2, labels)


def rows_of(split: Split, rows: np.ndarray) -> Split:
    """The split with these rows alone, in their order, in memory."""
    sides = []
    for ids, offsets in ((split.ids1, split.offsets1), (split.ids2, split.offsets2)):
        if ids is not None and offsets is not None:
            lengths = np.diff(offsets)[rows]
            ends = np.cumsum(lengths)
            sides.append((ids[np.arange(ends[-1]) + np.repeat(offsets[rows] - ends + lengths, lengths)], lengths))
    labels = None if split.labels is None else split.labels[rows]
    return split_of(split.task, split.split, split.folder, sides, labels)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """The split without a random share of its rows, and those rows; each has at least one row.

    Raises:
        MtbertError: the split has a single row.
    """
    if len(split) < 2:
        raise MtbertError(
            f"optimization.hold_out: {split.task} has one training example, so none can be held out; set the key to null"
        )
    rows = np.random.default_rng([seed, 0, 0, 0, 2]).permutation(len(split))
    count = held_out_rows(len(split), share)
    return rows_of(split, np.sort(rows[count:])), rows_of(split, np.sort(rows[:count]))


def held_out_rows(rows: int, share: float) -> int:
    """How many of a split's rows `hold_out` takes."""
    return min(max(1, round(share * rows)), rows - 1)


def check_prepared(folder: Path, splits: Iterable[str]) -> None:
    """Verify the checksums of the tokenizer and of these splits (train, dev, test).

    Raises:
        MtbertError: names the file that is missing or changed.
    """
    check_seal(folder, "tokenizer.json")
    for split in splits:
        check_seal(folder / split)


def has_split(folder: Path, task_name: str, split: str) -> bool:
    """Whether the split was prepared; a task may have no test split."""
    return (folder / split / task_name).is_dir()


def load_split(folder: Path, task: Task, split: str) -> Split:
    """Map the arrays of folder/{split}/{task} into memory and check that they are consistent.

    Raises:
        MtbertError: names the file that is missing, truncated or inconsistent with the others.
    """
    place = folder / split / task.name
    ids1, offsets1 = _sentences(place, 1)
    ids2, offsets2 = _sentences(place, 2) if task.is_pair else (None, None)
    if offsets2 is not None and len(offsets2) != len(offsets1):
        counts = f"{len(offsets2) - 1} rows where offsets1.npy has {len(offsets1) - 1}"
        raise MtbertError(f"{place / 'offsets2.npy'}: {counts}; {_again(place / 'offsets2.npy')}")
    labels = _labels(place, task, len(offsets1) - 1)
    return Split(task.name, split, place, ids1, offsets1, ids2, offsets2, labels)


def _sentences(place: Path, sentence: int) -> tuple[np.ndarray, np.ndarray]:
    ids = _array(place / f"ids{sentence}.npy", np.dtype(np.uint16))
    path = place / f"offsets{sentence}.npy"
    offsets = _array(path, np.dtype(np.int64))
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(ids):
        raise MtbertError(
            f"{path}: does not run from 0 to the {len(ids)} wordpieces of ids{sentence}.npy; {_again(path)}"
        )
    steps = np.diff(offsets)
    if (steps <= 0).any():
        raise MtbertError(f"{path}: row {int(np.argmax(steps <= 0))} has no wordpiece; {_again(path)}")
    return ids, offsets


def _labels(place: Path, task: Task, rows: int) -> np.ndarray | None:
    path = place / "labels.npy"
    if not path.exists():
        return None
    labels = _array(path, np.dtype(np.float32))
    if len(labels) != rows:
        raise MtbertError(f"{path}: {len(labels)} labels for {rows} rows; {_again(path)}")
    bad = ~((labels >= task.low) & (labels <= task.high))  # also true for NaN
    if task.kind != "score":
        bad |= labels != np.floor(labels)
    if bad.any():
        row = int(np.argmax(bad))
        raise MtbertError(f"{path}: row {row} has label {labels[row]:g}, which {task.name} cannot have; {_again(path)}")
    return labels


def _array(path: Path, dtype: np.dtype) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; {remedy(path.parent.parent)}") from None
    except (OSError, ValueError, EOFError) as error:
        raise MtbertError(f"{path}: not a readable array ({error}); {_again(path)}") from None
    if array.ndim != 1 or array.dtype != dtype:
        raise MtbertError(f"{path}: {array.dtype} of shape {array.shape}, expected one axis of {dtype}; {_again(path)}")
    return array


def _again(path: Path) -> str:
    """The remedy for a damaged file of a split's task."""
    return remedy(path.parent.parent, path)
