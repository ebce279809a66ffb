"""Every fault is reported with its line and column."""

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtbert.corpus import hashes, lines, read
from mtbert.corpus.read import has_labels, place_of, read_blocks
from mtbert.errors import MtbertError
from mtbert.tasks.paper import QUORA, SST, STS
from mtbert.tasks.task import Task
from tests.corpus.whole import HEADERS, read_split, same_hash

SST_HEADER, QUORA_HEADER = HEADERS["sst"], HEADERS["quora"]
GOOD = {"sst": "0\ta1\t A film .\t3", "quora": "0\ta1\tWho ?\tWho is it ?\t1.0", "sts": "0\ta1\tA dog.\tA cat.\t2.6"}


def write(tmp_path: Path, task: Task, *rows: str) -> Path:
    path = tmp_path / f"{task.name}.csv"
    path.write_bytes("\n".join([HEADERS[task.name], GOOD[task.name], *rows, ""]).encode())
    return path


# task, rows after one good row (which is line 2), line:column and fault, rows left under drop
FAULTS = [
    (SST, ["1\tb\t\t3"], "3:5: empty sentence", 1),
    (SST, ["1\tb\t \u2003 \t3"], "3:5: empty sentence", 1),
    (SST, ["1\tb\tfine\t"], "3:10: missing sentiment", 1),
    (SST, ["1\tb\tfine\t "], "3:10: missing sentiment", 1),
    (SST, ["1\tb\tfine\tfour"], "3:10: sentiment 'four' is not a number (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\tnan"], "3:10: sentiment 'nan' is not a number (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t1_0"], "3:10: sentiment '1_0' is not a number (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t٣"], "3:10: sentiment '٣' is not a number (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t5"], "3:10: sentiment 5 is out of range (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t-1"], "3:10: sentiment -1 is out of range (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t2.5"], "3:10: sentiment 2.5 is not a whole number (valid: 0 to 4, whole numbers)", 1),
    (SST, ["1\tb\tfine\t3\t3"], "3:12: 5 columns where the header has 4", 1),
    (SST, ["1\tb\tfine", "2\tc\tgood\t4"], "3:9: missing column sentiment", 2),
    (SST, ["1\tb", "2\tc\tgood\t4"], "3:4: missing columns sentence, sentiment", 2),
    (SST, ["1\tb\tfine"], "3:9: missing column sentiment: the file ends inside this row", 1),
    (SST, ["1\t\tfine\t3"], "3:3: empty id", 1),
    *(
        (SST, [f"1\t{name}\tfine\t3"], f"3:3: id with {wrong!r} in it (an id is one printable word without commas)", 1)
        for name, wrong in [
            ("two words", " "),
            (" b", " "),
            ("b ", " "),
            ("evil , 1.0 ", " "),
            ("b,1.0", ","),
            ("b\u00a0c", "\xa0"),
            ("b\u2028c", "\u2028"),
            ("b\x1b[2Jc", "\x1b"),
            ("b\x85c", "\x85"),
            ("b\u200bc", "\u200b"),
        ]
    ),
    (
        QUORA,
        ['1\t"evil , 1.0 \nanother_id"\tone\ttwo\t1'],
        "3:3: id with ' ' in it (an id is one printable word without commas)",
        1,
    ),
    (
        QUORA,
        ['1\t"evil\nanother_id"\tone\ttwo\t1'],
        "3:3: id with '\\n' in it (an id is one printable word without commas)",
        1,
    ),
    (QUORA, ['1\t"evil\tid"\tone\ttwo\t1'], "3:3: id with '\\t' in it (an id is one printable word without commas)", 1),
    (SST, ["1\ta1\tfine\t3"], "3:3: id 'a1' is already on line 2", 1),
    (SST, ["1\tb\tfi\0ne\t3", "2\tc\tgood\t4"], "3:7: NUL byte", 2),
    (SST, ["1\tb\tfi\rne\t3", "2\tc\tgood\t4"], "3:7: carriage return inside a row", 2),
    (SST, ["", "2\tc\tgood\t4"], "3:1: empty line", 2),
    (SST, ['1\tb\té "x" 😀\tbad'], "3:13: sentiment 'bad' is not a number (valid: 0 to 4, whole numbers)", 1),
    (QUORA, ["1\tb\tone\t\t0.0"], "3:9: empty sentence2", 1),
    (QUORA, ["1\tb\t\ttwo\t0.0"], "3:5: empty sentence1", 1),
    (QUORA, ["1\tb\tone\ttwo\t0.5"], "3:13: is_duplicate 0.5 is not a whole number (valid: 0 to 1, whole numbers)", 1),
    (QUORA, ["1\tb\tone\ttwo\t2"], "3:13: is_duplicate 2 is out of range (valid: 0 to 1, whole numbers)", 1),
    (QUORA, ["1\tb\tone\ttwo\tTrue"], "3:13: is_duplicate 'True' is not a number (valid: 0 to 1, whole numbers)", 1),
    # The blemish of the published file: a sentence cut after an opening quote, and its label lost.
    (
        QUORA,
        ['1\tb\tone\t"""two was cut"\t', "2\tc\tone\ttwo\t0.0"],
        "3:25: missing is_duplicate (unbalanced quote in sentence2: the row is cut by an embedded newline)",
        2,
    ),
    (
        SST,
        ['1\tb\t"""cut"\t'],
        "3:13: missing sentiment (unbalanced quote in sentence: the row is cut by an embedded newline)",
        1,
    ),
    (QUORA, ['1\tb\tone\ta "b" c "d"\t'], "3:21: missing is_duplicate", 1),
    # An opening quote without an end: csv readers swallow the rows up to the next quote.
    (
        QUORA,
        ['1\tb\tone\t"two\t0.0', '2\tc\tone "x"\t"two"\t1.0'],
        "3:9: unbalanced quote: the quoted field that starts here runs on into the row on line 4 "
        "(a row cut by an embedded newline)",
        2,
    ),
    (
        QUORA,
        ['1\tb\tone\t"two\t0.0'],
        "3:9: unbalanced quote: the quoted field that starts here never ends "
        "(a row cut by an embedded newline, or a truncated file)",
        1,
    ),
    (
        QUORA,
        ['1\tb\t"one" and\ttwo\t0.0', "2\tc\tone\ttwo\t1.0"],
        '3:10: unbalanced quote: text after a closing quote (a quote inside is doubled: "")',
        2,
    ),
    (
        QUORA,
        ["1\tb\tone\ttwo is", "cut here\t0.0", "2\tc\tone\ttwo\t1.0"],
        "3:15: row cut by an embedded newline: missing column is_duplicate is on line 4",
        2,
    ),
    (
        QUORA,
        ["1\tb\tone\ttwo is", "cut here\t0.0"],
        "3:15: row cut by an embedded newline: missing column is_duplicate is on line 4",
        1,
    ),
    (
        QUORA,
        ["1\tb\tone", "is cut\ttwo", "is cut\t0.0", "2\tc\tone\ttwo\t1.0"],
        "3:8: row cut by an embedded newline: missing columns sentence2, is_duplicate are on line 5",
        2,
    ),
    (QUORA, ["1\tb\tone", "stray"], "3:8: missing columns sentence2, is_duplicate", 1),
    (
        QUORA,
        ['1\tb\t"one', 'more"\ttwo\tno'],
        "4:11: is_duplicate 'no' is not a number (valid: 0 to 1, whole numbers)",
        1,
    ),
    (QUORA, ['1\tb\t"one', 'mo\0re"\ttwo\t0'], "4:3: NUL byte", 1),
    (QUORA, ['1\tb\t"one', 'mo\rre"\ttwo\t0'], "4:3: carriage return inside a row", 1),
    (STS, ["1\tb\tone\ttwo\t5.1"], "3:13: similarity 5.1 is out of range (valid: 0 to 5)", 1),
    (STS, ["1\tb\tone\ttwo\t-0.2"], "3:13: similarity -0.2 is out of range (valid: 0 to 5)", 1),
    (STS, ["1\tb\tone\ttwo\tinf"], "3:13: similarity 'inf' is not a number (valid: 0 to 5)", 1),
    (STS, ["1\tb\tone\ttwo\t1e999"], "3:13: similarity 1e999 is out of range (valid: 0 to 5)", 1),
    (STS, ["1\tb\tone\ttwo\t2,5"], "3:13: similarity '2,5' is not a number (valid: 0 to 5)", 1),
    (STS, ["1\tb\tone\ttwo\t"], "3:13: missing similarity", 1),
    (STS, ["1,b,one,two,2.5", "2\tc\tone\ttwo\t4"], "3:16: missing columns id, sentence1, sentence2, similarity", 2),
]


@pytest.mark.parametrize(("task", "rows", "fault", "left"), FAULTS)
def test_a_bad_row_is_an_error_with_its_place_or_a_listed_drop(
    tmp_path: Path, task: Task, rows: list[str], fault: str, left: int
) -> None:
    path = write(tmp_path, task, *rows)
    with pytest.raises(MtbertError) as error:
        read_split(path, task, True, "error")
    assert str(error.value).rpartition("; ")[0] == f"{path}:{fault}"
    examples, bad = read_split(path, task, True, "drop")
    assert len(examples) == left
    assert str(bad[0]) == str(error.value)


def test_the_first_of_many_bad_rows_is_the_error(tmp_path: Path) -> None:
    path = write(tmp_path, SST, "1\tb\tfine\t9", "2\tc\t\t1", "3\td\tfine\t8")
    with pytest.raises(MtbertError, match=r":3:10: sentiment 9 is out of range"):
        read_split(path, SST, True, "error")


def test_drop_loses_no_row_but_the_bad_ones(tmp_path: Path) -> None:
    rows = ['1\tb\tone\t"two\t0.0', "2\tc\tone\ttwo\t1.0", '3\td\tone\t"""cut"\t', '4\te\t"q ""x"""\ttwo\t0']
    examples, bad = read_split(write(tmp_path, QUORA, *rows), QUORA, True, "drop")
    assert [(example.id, example.line) for example in examples] == [("a1", 2), ("c", 4), ("e", 6)]
    assert [(row.line, row.column) for row in bad] == [(3, 9), (5, 17)]
    assert examples[2].sentence1 == 'q "x"'


def test_a_stray_line_after_an_unbalanced_quote_is_a_row_of_its_own(tmp_path: Path) -> None:
    rows = ['1\tb\tone\t"two\t0.0', "stray", "2\tc\tone\ttwo\t1.0"]
    examples, bad = read_split(write(tmp_path, QUORA, *rows), QUORA, True, "drop")
    assert [example.id for example in examples] == ["a1", "c"]
    assert [row.line for row in bad] == [3, 4]


def test_a_file_of_bad_rows_alone_is_no_error_under_drop(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"{SST_HEADER}\n0\ta\tfine\t9\n1\tb\tfine\t8\n")
    examples, bad = read_split(path, SST, True, "drop")
    assert (examples, [row.line for row in bad]) == ([], [2, 3])


def test_a_sentence_that_reads_like_a_label_is_none(tmp_path: Path) -> None:
    """Labels are parsed once per text, and only labels are cached."""
    path = write(tmp_path, QUORA, "1\tb\t1\t1\t0", "2\tc\t0\t0\t1")
    examples, _ = read_split(path, QUORA, True, "error")
    assert [example.label for example in examples] == [1.0, 0.0, 1.0]


FILE_FAULTS = [
    (b"", "1:1: the file is empty"),
    (b"\n \n", "1:1: the file is empty"),
    (b"\xef\xbb\xbf" + SST_HEADER.encode(), "1:1: starts with a byte order mark"),
    (SST_HEADER.encode("utf-16"), "1:1: UTF-16 rather than UTF-8"),
    (b"\xfe\xff" + SST_HEADER.encode("utf-16-be"), "1:1: UTF-16 rather than UTF-8"),
    (b"\n\xff", "2:1: not UTF-8 (byte 0xff at offset 1)"),
    (SST_HEADER.encode() + b"\n0\ta\tcaf\xe9 .\t3\n", "2:8: not UTF-8 (byte 0xe9 at offset 30)"),
    (
        SST_HEADER.encode() + "\n0\ta\té x".encode() + b"\xe2\x80",
        "2:8: truncated: the file ends inside a character (at offset 31)",
    ),
    (b",id,sentence,sentiment\n0,a,fine,3\n", "1:1: columns separated by commas rather than tabs"),
    (b";id;sentence;sentiment\n0\ta\tfine\t3\n", "1:1: columns separated by semicolons rather than tabs"),
    (b"|id|sentence|sentiment\n0|a|fine|3\n", "1:1: columns separated by bars rather than tabs"),
    (b"0\ta1\tfine\t3\n", "1:1: no header"),
    (b"fine\n", "1:1: no header"),
    (b"id\tsentence\tsentiment\na\tfine\t3\n", "1:1: header: no index column"),
    (b"\t\t\tid\tsentence\tsentiment\n", "1:3: header: 3 unnamed columns"),
    (b"\tsentence\tid\tsentiment\n", "1:2: header: column 'sentence' where 'id' belongs"),
    (
        b"\tid\tsentence\tsentiment\tmood\n",
        "1:24: header: unknown column 'mood'; this file must start with a tab-separated header: "
        "an unnamed index column, id, sentence, sentiment",
    ),
    (b"\t\tid\tsentence\tsentiment\tmood\n", "1:25: header: unknown column 'mood'"),
    (b"\tid\tsentence\tsentence\tsentiment\n", "1:14: header: column 'sentence' appears twice"),
    (b"\tid\tsentence\n0\ta\tfine\n", "1:13: header: missing column sentiment"),
    (b"\tid\tsentiment\n0\ta\t3\n", "1:14: header: missing column sentence"),
    (b"\tid\n0\ta\n", "1:4: header: missing columns sentence, sentiment"),
    (b'\tid\t"sentence\tsentiment\n0\ta\tfine\t3\n', "1:5: header: unbalanced quote"),
    (SST_HEADER.encode() + b"\n", "2:1: no row after the header"),
]


@pytest.mark.parametrize(("data", "fault"), FILE_FAULTS)
@pytest.mark.parametrize("on_bad_row", ["error", "drop"])
def test_a_fault_of_the_whole_file_is_an_error_always(tmp_path: Path, data: bytes, fault: str, on_bad_row: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(data)
    with pytest.raises(MtbertError) as error:
        read_split(path, SST, True, on_bad_row)  # type: ignore[arg-type]
    assert str(error.value).startswith(f"{path}:{fault}")
    assert "; " in str(error.value)


def test_a_missing_file_and_an_unexpected_label_are_named(tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match=r"none.csv: not found; run `dvc repro fetch`$"):
        read_split(tmp_path / "none.csv", SST, True, "error")
    with pytest.raises(MtbertError, match="1:14: header: unknown column 'sentiment'; an unlabelled file has no label"):
        read_split(write(tmp_path, SST), SST, False, "error")
    with pytest.raises(MtbertError, match="header: unknown column 'sentence'"):
        has_labels(write(tmp_path, SST), STS)


@pytest.mark.parametrize(
    ("task", "text", "sentences", "label"),
    [
        (SST, "1\tb\t A film .\t0", (" A film .", None), 0.0),
        (SST, "1\tb\tone\u2028line\x85\x0b\x0c\t4.0", ("one\u2028line\x85\x0b\x0c", None), 4.0),
        (SST, "1\tb\tNone\t2", ("None", None), 2.0),
        (QUORA, "x\tb\tNA\tnull\t1.0", ("NA", "null"), 1.0),
        (QUORA, '1\tb\t"say ""so"""\t5" disk\t0', ('say "so"', '5" disk'), 0.0),
        (QUORA, '1\tb\t"two\nlines"\ttwo\t0', ("two\nlines", "two"), 0.0),
        (QUORA, '1\tb\t"a\ttab"\ttwo\t1', ("a\ttab", "two"), 1.0),
        (STS, "1\t81f7-aa\tone\ttwo\t3.667", ("one", "two"), 3.667),
        (STS, "1\tb\tone\ttwo\t5", ("one", "two"), 5.0),
        (STS, "1\tb\tone\ttwo\t-0.0", ("one", "two"), 0.0),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "", "\n\n\r\n"])
def test_harmless_oddities_are_accepted(
    tmp_path: Path, task: Task, text: str, sentences: tuple[str, str | None], label: float, end: str
) -> None:
    path = tmp_path / "train.csv"
    newline = "\r\n" if "\r\n" in end else "\n"
    path.write_bytes((HEADERS[task.name] + newline + text.replace("\n", newline) + end).encode())
    ((example,), bad) = read_split(path, task, True, "error")
    assert (example.sentence1, example.sentence2) == sentences
    assert (str(example.label), example.line, bad) == (str(label), 2, [])


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a FIFO"), (Path.mkdir, "a folder")])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Any, what: str) -> None:
    make(tmp_path / "train.csv")
    with pytest.raises(MtbertError, match=f"train.csv: {what} instead of a file; replace the file"):
        read_split(tmp_path / "train.csv", SST, True, "error")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SST)

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MtbertError, match=r"sst.csv: cannot be read \(Permission denied\); check its permissions"):
        read_split(path, SST, True, "error")


def test_unlabelled_files_and_two_index_columns(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("0\t\tid\tsentence\n1\t0.0\tabc\t Fine\n")
    assert not has_labels(path, SST)
    examples, _ = read_split(path, SST, False, "error")
    assert examples == [("abc", " Fine", None, None, 2)]
    assert place_of(path, SST, 2, 1) == (2, 11)
    assert has_labels(write(tmp_path, STS), STS)


# Whole rows, pieces of rows, and faults; ids repeat.
PIECES = [
    *(f"{n}\tid{n}\tWho is {n % 3} ?\t[UNK] {n}\t{n % 2}.0" for n in range(12)),
    *("7\tid3\tA\tB\t1", "7\tid4\t\tB\t1", '8\tq1\t"Two\nlines"\tB\t0', '9\tq2\t"""a"\tB "c"\t0'),
    *('8\tq3\tA\t"B\t0', "line", "li\tne", '"', "", "9\tq4\tA\tB", "9\tq5\tA\tB\t2", "9\tq6\tA\tB\t1\t1"),
    *("9\tq7\tA\r\tB\t1", "9\tq8\tA\0\tB\t1", "9\tq9\tcafé 日\u2028\t\u200b\t1", "9\tq10\tA\ufffd\xa0\x85\tB\t1\r", "9\t \tA\tB\t1"),
]  # fmt: skip
ENDS = st.sampled_from([b"", b"\n", b"\n\n", b"\r\n\r\n", b"\r", b"\n\r\r\n", b"\n\xe2\x80", b"\n\xff\n"])
SIZES = (1, 2, 7, 60, 200)  # bytes, extended to a line end: 1, 2 and 7 are a row each


def everything(path: Path) -> list[Any]:
    """Everything that reading a file returns or raises, in both modes."""
    outcomes: list[Any] = []
    for on_bad_row in ("error", "drop"):
        try:
            examples, bad = read_split(path, QUORA, True, on_bad_row)  # type: ignore[arg-type]
            outcomes += [examples, [str(row) for row in bad]]
        except MtbertError as error:
            outcomes.append(str(error))
    return outcomes


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.sampled_from(PIECES), max_size=12), newline=st.sampled_from([b"\n", b"\r\n"]), end=ENDS)
@example(["0\tid0\tA\tB\t1", "1\tid0\tA\tB\t9"], b"\n", b"")  # the id is checked first
@example(['8\tq3\tA\t"B', *["line"] * 60, 'end"\t0'], b"\n", b"")
def test_block_ends_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], newline: bytes, end: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(QUORA_HEADER.encode() + newline + newline.join(row.encode() for row in rows) + end)
    whole = everything(path)
    with patch.object(read, "_by_column", lambda *_: None):
        assert everything(path) == whole
    for size in SIZES:
        with patch.object(lines, "BLOCK", size):
            assert everything(path) == whole


@pytest.mark.parametrize("size", SIZES)
def test_ids_of_one_hash_are_no_repetition(tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join([QUORA_HEADER.encode(), *(row.encode() for row in PIECES[:12])]))
    whole = everything(path)
    with patch.object(lines, "BLOCK", size), patch.object(hashes, "hashes", same_hash):
        assert everything(path) == whole
    path.write_bytes(b"\n".join([QUORA_HEADER.encode(), *(row.encode() for row in PIECES[:13])]))
    with patch.object(lines, "BLOCK", size):
        assert everything(path)[0].startswith(f"{path}:14:3: id 'id3' is already on line 5")


def test_rows_without_a_fault_are_read_once_and_by_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join([QUORA_HEADER.encode(), *(row.encode() for row in [*PIECES[:12], PIECES[14]])]))
    for size in (1, 100, 1 << 20):
        with (
            patch.object(lines, "BLOCK", size),
            patch.object(read, "_by_row", side_effect=AssertionError),
            patch.object(read, "Lines", wraps=lines.Lines) as opened,
        ):
            examples, bad = read_split(path, QUORA, True, "error")
        assert (len(examples), bad, opened.call_count) == (13, [], 1)


@pytest.mark.parametrize("rows", ["1\tb\tx", "1\tb\tx\n2\tc\t"])
def test_a_block_has_the_columns_of_its_file_whether_or_not_a_row_is_bad(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"\tid\tsentence\n{rows}\n")
    (((ids, sides, labels, starts), _),) = read_blocks(path, SST, False, "drop")
    assert (list(ids), [list(side) for side in sides], labels, list(starts)) == (["b"], [["x"]], None, [2])
