"""How much is read at once changes neither a byte of what prepare writes nor a word of what it says; memory stays by the block."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mtbert.data import hashes, lines, read, repeats
from mtbert.data.prepare import prepare
from mtbert.data.read import read_blocks, read_split
from mtbert.data.tasks import QUORA, SPLITS, TASKS
from mtbert.errors import MtbertError

HEADER = b"\tid\tsentence1\tsentence2\tis_duplicate"
# Whole rows, pieces of rows, and faults; ids repeat.
PIECES = [
    *(f"{n}\tid{n}\tWho is {n % 3} ?\t[UNK] {n}\t{n % 2}.0" for n in range(12)),
    *("7\tid3\tA\tB\t1", "7\tid4\t\tB\t1", '8\tq1\t"Two\nlines"\tB\t0', '9\tq2\t"""a"\tB "c"\t0'),
    *('8\tq3\tA\t"B\t0', "line", "li\tne", '"', "", "9\tq4\tA\tB", "9\tq5\tA\tB\t2", "9\tq6\tA\tB\t1\t1"),
    *("9\tq7\tA\r\tB\t1", "9\tq8\tA\0\tB\t1", "9\tq9\tcafé 日\u2028\t\u200b\t1", "9\tq10\tA\ufffd\xa0\x85\tB\t1\r", "9\t \tA\tB\t1"),
]  # fmt: skip
ENDS = st.sampled_from([b"", b"\n", b"\n\n", b"\r\n\r\n", b"\r", b"\n\r\r\n", b"\n\xe2\x80", b"\n\xff\n"])
SIZES = (1, 2, 7, 60, 200)  # bytes, read on to the end of a line: 1, 2 and 7 are a row each


def everything(path: Path) -> list[Any]:
    """All that reading a file gives or raises, in both modes."""
    told: list[Any] = []
    for on_bad_row in ("error", "drop"):
        try:
            examples, bad = read_split(path, QUORA, True, on_bad_row)  # type: ignore[arg-type]
            told += [examples, [str(row) for row in bad]]
        except MtbertError as error:
            told.append(str(error))
    return told


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.sampled_from(PIECES), max_size=12), newline=st.sampled_from([b"\n", b"\r\n"]), end=ENDS)
@example(
    ["0\tid0\tA\tB\t1", "1\tid0\tA\tB\t9"], b"\n", b""
)  # said to be the second of its id before its label is looked at
@example(['8\tq3\tA\t"B', *["line"] * 60, 'end"\t0'], b"\n", b"")
def test_block_ends_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], newline: bytes, end: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(HEADER + newline + newline.join(row.encode() for row in rows) + end)
    whole = everything(path)
    with patch.object(read, "_by_column", lambda *_: None):
        assert everything(path) == whole
    for size in SIZES:
        with patch.object(lines, "BLOCK", size):
            assert everything(path) == whole


def same_hash(texts: Any) -> np.ndarray:
    return np.zeros(len(texts), np.int64)


@pytest.mark.parametrize("size", SIZES)
def test_ids_of_one_hash_are_no_repetition(tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join([HEADER, *(row.encode() for row in PIECES[:12])]))
    whole = everything(path)
    with patch.object(lines, "BLOCK", size), patch.object(hashes, "hashes", same_hash):
        assert everything(path) == whole
    path.write_bytes(b"\n".join([HEADER, *(row.encode() for row in PIECES[:13])]))
    with patch.object(lines, "BLOCK", size):
        assert everything(path)[0].startswith(f"{path}:14:3: id 'id3' stands on line 5 already")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Odd but sound rows in nine files, some of them in two splits, and a tokenizer."""
    (tmp_path / "raw").mkdir()
    for task in TASKS.values():
        for number, split in enumerate(SPLITS):
            rows = ["\t".join(["", "id", *task.texts, task.label])]
            for n in range(30):
                texts = [
                    f" The  {n * (number + side + 1) % 17}, [x]" + ' "é' * (n % 5 == 0)
                    for side, _ in enumerate(task.texts)
                ]
                rows.append("\t".join([str(n), f"{split}{n}", *texts, str(n % int(task.high + 1))]))
            rows.insert(9, "\t".join(["n", "none", *["\u200b"] * len(task.texts), "1"]))
            rows.insert(12, "\t".join(["n", "bad", *["a"] * len(task.texts), "x"]))
            rows.insert(15, "\t".join(["n", "two", *['"a\n""b"' for _ in task.texts], "1"]))
            (tmp_path / "raw" / f"{task.name}-{split}.csv").write_bytes("\n".join(rows).encode())
    tokenizer = Tokenizer(
        WordPiece({word: n for n, word in enumerate(["[UNK]", "the", *map(str, range(17))])}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def prepared(project: Path, leakage: Any) -> dict[str, bytes]:
    prepare(project / "raw", project / "out", project / "tokenizer.json", "drop", leakage, "course", 9)
    return {
        str(path.relative_to(project)): path.read_bytes() for path in (project / "out").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("leakage", ["keep", "drop"])
def test_prepare_writes_the_same_by_blocks(project: Path, leakage: str) -> None:
    whole = prepared(project, leakage)
    assert len(whole) == 3 + 3 * (4 + 6 + 6)
    for size in SIZES:
        with patch.object(lines, "BLOCK", size):
            assert prepared(project, leakage) == whole
    with patch.object(repeats, "hashes", same_hash):
        assert prepared(project, leakage) == whole


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_malformed_row_comes_before_a_sentence_without_wordpieces(project: Path, size: int) -> None:
    for name in ("sst-train", "sst-dev", "sst-test"):
        path = project / "raw" / f"{name}.csv"
        path.write_text("\tid\tsentence\tsentiment\n0\ta\t\u200b\t1\n1\tb\tx\t1\n2\tc\tx\t9\n")
    with (
        patch.object(lines, "BLOCK", size),
        pytest.raises(MtbertError, match=r"sst-test.csv:4:7: sentiment 9 is out of"),
    ):
        prepare(project / "raw", project / "out", project / "tokenizer.json", "error", "keep", "course", 9)


def peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_no_more_than_hashes(tmp_path: Path) -> None:
    """Rows of 1,000 bytes: were they kept, eight times the file would take 5 MB more."""

    def write(rows: int) -> Path:
        path = tmp_path / "rows.csv"
        row = "\t".join(["the quick brown fox " * 25] * 2)
        path.write_bytes(b"\n".join([HEADER, *(f"{n}\tid{n}\t{row}\t1".encode() for n in range(rows))]))
        return path

    def read_all(path: Path) -> None:
        assert sum(len(rows.ids) for rows, _ in read_blocks(path, QUORA, True, "error")) > 0

    small, large = (peak(partial(read_all, write(rows))) for rows in (1000, 8000))
    assert large - small < 7000 * 100, f"{(large - small) / 7000:.0f} bytes a row"
