"""The block size does not change what prepare writes, and memory does not grow with the file."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mtbert.corpus import lines, repeats
from mtbert.corpus.prepare import prepare
from mtbert.corpus.read import read_blocks
from mtbert.errors import MtbertError
from mtbert.seal import seal
from mtbert.tasks.paper import QUORA, TASKS
from mtbert.tasks.task import SPLITS
from tests.corpus.whole import HEADERS, bert_tokenizer, same_hash

SIZES = (1, 60, 200)  # bytes, extended to a line end


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Unusual but valid rows in nine files, some of them in two splits, and a tokenizer."""
    (tmp_path / "raw").mkdir()
    for task in TASKS.values():
        for number, split in enumerate(SPLITS):
            rows = [HEADERS[task.name]]
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
    bert_tokenizer(["[UNK]", "the", *map(str, range(17))]).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def prepared(project: Path, leakage: Any) -> dict[str, bytes]:
    seal(project / "raw")
    prepare(project / "raw", project / "out", project / "tokenizer.json", "drop", leakage, "course", 9)
    return {
        str(path.relative_to(project)): path.read_bytes() for path in (project / "out").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("leakage", ["keep", "drop"])
def test_prepare_writes_the_same_by_blocks(project: Path, leakage: str) -> None:
    whole = prepared(project, leakage)
    assert len(whole) == 3 + 3 * (1 + 4 + 6 + 6)
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
        seal(project / "raw")
        prepare(project / "raw", project / "out", project / "tokenizer.json", "error", "keep", "course", 9)


def peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_no_more_than_hashes(tmp_path: Path) -> None:
    """Rows of 1,000 bytes: if they were kept in memory, a file eight times as large would take 5 MB more."""

    def write(rows: int) -> Path:
        path = tmp_path / "rows.csv"
        row = "\t".join(["the quick brown fox " * 25] * 2)
        path.write_text("\n".join([HEADERS["quora"], *(f"{n}\tid{n}\t{row}\t1" for n in range(rows))]))
        return path

    def read_all(path: Path) -> None:
        assert sum(len(rows.ids) for rows, _ in read_blocks(path, QUORA, True, "error")) > 0

    small, large = (peak(partial(read_all, write(rows))) for rows in (1000, 8000))
    assert large - small < 7000 * 100, f"{(large - small) / 7000:.0f} bytes a row"
