"""Writes the files of a prepared split block by block, so that memory does not grow with the split."""

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mtbert.corpus.rows import RowBlock
from mtbert.tasks.task import Task


class SplitWriter(ExitStack):
    """Writes ids1.npy, offsets1.npy, for pairs ids2.npy and offsets2.npy, labels.npy if labelled, and examples.csv."""

    def __init__(self, folder: Path, task: Task, labelled: bool) -> None:
        super().__init__()
        self._task = task
        self._sides = [
            (self._array(folder / f"ids{n}.npy", np.uint16), self._array(folder / f"offsets{n}.npy", np.int64))
            for n, _ in enumerate(task.texts, start=1)
        ]
        for _, offsets in self._sides:
            offsets.write(np.zeros(1, np.int64))
        self._labels = self._array(folder / "labels.npy", np.float32) if labelled else None
        self._examples = self.enter_context((folder / "examples.csv").open("wb"))
        self._table([("id", *(["sentence1", "sentence2"][: len(task.texts)]), "label")])

    def write(self, rows: RowBlock, pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add rows; `pieces` holds, for first and second sentences, their ids (W,) end to end and their lengths (R,)."""
        for (ids, offsets), (new, lengths) in zip(self._sides, pieces, strict=True):
            offsets.write(ids.length + np.cumsum(lengths, dtype=np.int64))
            ids.write(new)
        labels = [""] * len(rows.ids)
        if self._labels is not None and rows.labels is not None:
            self._labels.write(np.array(rows.labels, np.float32))
            labels = list(map(self._task.text_of, rows.labels))
        self._table(zip(rows.ids, *rows.sides, labels, strict=True))

    def _array(self, path: Path, dtype: type[np.generic]) -> "_Array":
        array = _Array(self.enter_context(path.open("wb")), np.dtype(dtype))
        self.callback(array.finish)
        return array

    def _table(self, rows: object) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
        self._examples.write(text.getvalue().encode("utf-8"))


class _Array:
    """A one-dimensional .npy file that grows."""

    def __init__(self, file: BinaryIO, dtype: np.dtype) -> None:
        self._file, self._dtype, self.length = file, dtype, 0
        self._write_header()

    def write(self, values: np.ndarray) -> None:
        self._file.write(values.astype(self._dtype, copy=False).tobytes())
        self.length += len(values)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that the length can grow.
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
