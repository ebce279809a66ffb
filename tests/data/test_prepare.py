"""From course files to arrays: exact texts, exact counts, exact places."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mtbert.data.arrays import load_split
from mtbert.data.prepare import clean, prepare, summary
from mtbert.data.tasks import QUORA, SST, STS
from mtbert.errors import MtbertError
from mtbert.seal import seal

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f", ".", "?", ",", "'", "##x"]
HEADERS = {
    "sst": "\tid\tsentence\tsentiment",
    "quora": "\tid\tsentence1\tsentence2\tis_duplicate",
    "sts": "\tid\tsentence1\tsentence2\tsimilarity",
}
ROWS = {
    "sst-train": ["0\ts1\t A B .\t3", "1\ts2\tc d\t0", "2\ts3\tc  D\t0", "3\ts4\te\t4", "4\ts5\te\t1"],
    "sst-dev": ["0\td1\ta b .\t1"],
    "sst-test": ["0\tt1\tE\t2"],
    "quora-train": ["0\tq1\tA?\tB, c?\t1.0", "1\tq2\tb, c?\ta?\t0.0", "2\tq3\td\te\t0.0"],
    "quora-dev": ["0\tp1\tE\tD\t1.0"],
    "quora-test": ["0\tp2\tf\tf f\t0.0"],
    "sts-train": ["0\tu1\ta b c d e f\tax\t2.6", "1\tu2\t\"a ''\"\tb\t5"],
    "sts-dev": ["0\tv1\ta\tb\t0.0"],
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, rows in ROWS.items():
        put(folder, name, *rows)
    return folder


def put(raw: Path, name: str, *rows: str, header: str | None = None) -> None:
    lines = [header or HEADERS[name.partition("-")[0]], *rows, ""]
    (raw / f"{name}.csv").write_bytes("\n".join(lines).encode())


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    # What sentence-transformers ships, and what must not reach the arrays.
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def run(raw: Path, tokenizer_file: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"on_bad_row": "error", "leakage": "keep", "preprocess": "course", "max_tokens": 8}
    seal(raw)
    return prepare(raw, raw.parent / "prepared", tokenizer_file, **{**settings, **changes})


def texts(raw: Path, task: str, split: str, sentence: int = 1) -> list[str]:
    part = load_split(raw.parent / "prepared", task, split)
    ids, offsets = (part.ids1, part.offsets1) if sentence == 1 else (part.ids2, part.offsets2)
    assert ids is not None and offsets is not None
    return [" ".join(WORDS[n] for n in ids[start:end]) for start, end in pairwise(offsets)]


@pytest.mark.parametrize(
    ("task", "text", "cleaned"),
    [
        (SST, " The ROCK 's  new .\u00a0", "the rock 's  new ."),
        (QUORA, "What's this, e.g. U.S.?  Really??", "what 's this , e .g . u .s .  ? really ? ?".replace("  ", " ")),
        (STS, "\tA dog's ''ball'' .", "a dog 's ' 'ball ' ' ."),
        (STS, "It costs 3,000.5!", "it costs 3 ,000 .5!"),
    ],
)
def test_course_preprocessing_is_the_starter_codes(task: Any, text: str, cleaned: str) -> None:
    assert clean(text, task, "course") == cleaned
    assert clean(text, task, "none") == text


def test_arrays_hold_every_wordpiece_once_and_nothing_else(raw: Path, tokenizer_file: Path) -> None:
    run(raw, tokenizer_file)
    assert texts(raw, "sst", "train") == ["a b .", "c d", "c d", "e", "e"]
    assert texts(raw, "quora", "train") == ["a ?", "b , c ?", "d"]
    assert texts(raw, "quora", "train", 2) == ["b , c ?", "a ?", "e"]
    assert texts(raw, "sts", "train", 2) == ["a ##x", "b"]
    sts = load_split(raw.parent / "prepared", "sts", "train")
    assert sts.labels is not None and sts.labels.tolist() == [np.float32(2.6), 5.0]
    assert (raw.parent / "prepared" / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()


def test_examples_keep_the_original_text(raw: Path, tokenizer_file: Path) -> None:
    odd = ['0\tNA\t" x, ""a"" b\nNone"\tnull\t5', "1\tu2\ta\u2028b\tNone\t3.667"]
    put(raw, "sts-train", *odd)
    run(raw, tokenizer_file)
    table = load_split(raw.parent / "prepared", "sts", "train").example_table()
    assert table.to_numpy().tolist() == [
        ["NA", ' x, "a" b\nNone', "null", "5.0"],
        ["u2", "a\u2028b", "None", "3.667"],
    ]
    sst = load_split(raw.parent / "prepared", "sst", "train").example_table()
    assert sst.columns.tolist() == ["id", "sentence1", "label"]
    assert sst.iloc[0].tolist() == ["s1", " A B .", "3"]


def test_report_counts(raw: Path, tokenizer_file: Path) -> None:
    report = run(raw, tokenizer_file)
    assert json.loads((raw.parent / "prepared" / "report.json").read_text()) == report
    sst = report["tasks"]["sst"]["train"]
    assert (sst["rows_read"], sst["rows_kept"]) == (5, 5)
    assert sst["repeated"] == {"sentences": 2, "sentences_and_label": 1}
    assert sst["leaked"] == {
        "rows": 3,
        "dev": 1,
        "test": 2,
        "removed": 0,
        "listed": [
            {"line": 2, "id": "s1", "also_in": ["dev"]},
            {"line": 5, "id": "s4", "also_in": ["test"]},
            {"line": 6, "id": "s5", "also_in": ["test"]},
        ],
    }
    assert sst["labels"] == {"0": 2, "1": 1, "2": 0, "3": 1, "4": 1}
    assert sst["wordpieces"] == {"total": 9, "mean": 1.8, "longest": 3}
    quora = report["tasks"]["quora"]["train"]
    assert quora["repeated"] == {"sentences": 1, "sentences_and_label": 0}
    assert (quora["leaked"]["rows"], quora["leaked"]["dev"]) == (1, 1)  # the pair the other way round
    # max_tokens 8 leaves room for 6 wordpieces of one sentence, or 5 of a pair.
    assert report["tasks"]["sts"]["train"]["over_long"] == {"sentences": 0, "sequences": 1}
    assert quora["over_long"] == {"sentences": 0, "sequences": 2}
    assert report["tasks"]["sts"]["test"] == {"present": False}
    assert report["tokenizer"]["vocabulary"] == len(WORDS)


def test_dropped_leakage_leaves_train_only(raw: Path, tokenizer_file: Path) -> None:
    report = run(raw, tokenizer_file, leakage="drop")
    assert texts(raw, "sst", "train") == ["c d", "c d"]
    assert texts(raw, "sst", "dev") == ["a b ."]
    assert report["tasks"]["sst"]["train"]["rows_kept"] == 2
    assert report["tasks"]["sst"]["train"]["leaked"]["removed"] == 3
    assert load_split(raw.parent / "prepared", "quora", "train").example_table()["id"].tolist() == ["q1", "q2"]


def test_a_split_without_any_row_left_is_an_error(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sst-train", "0\ts1\ta b .\t3")
    with pytest.raises(
        MtbertError, match=r"sst-train.csv: no row is left of 1; check prepare.on_bad_row and prepare.leakage"
    ):
        run(raw, tokenizer_file, leakage="drop")
    assert not (raw.parent / "prepared").exists()


def test_bad_rows_are_errors_or_listed(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "quora-dev", '0\tp1\ta\t"""b"\t', "1\tp2\ta\t\u200b\u200b\t0.0", "2\tp3\ta\tb\t0.0")
    with pytest.raises(MtbertError, match=r"quora-dev.csv:2:14: missing is_duplicate"):
        run(raw, tokenizer_file)
    report = run(raw, tokenizer_file, on_bad_row="drop")
    dev = report["tasks"]["quora"]["dev"]
    assert (dev["rows_read"], dev["rows_kept"], dev["bad_rows"]["count"]) == (3, 1, 2)
    assert [row["where"] for row in dev["bad_rows"]["listed"]] == [
        f"{raw}/quora-dev.csv:2:14",
        f"{raw}/quora-dev.csv:3:8",
    ]
    assert "no wordpiece" in dev["bad_rows"]["listed"][1]["what"]
    assert load_split(raw.parent / "prepared", "quora", "dev").example_table()["id"].tolist() == ["p3"]


def test_a_sentence_without_wordpieces_is_an_error_with_its_place(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sts-dev", "0\tv1\ta\tb\t0.0", "1\tv2\ta\t\u200b\t0.0")
    with pytest.raises(MtbertError, match=r"sts-dev.csv:3:8: sentence2 has no wordpiece .* correct the row"):
        run(raw, tokenizer_file)


def test_unlabelled_tests_have_no_labels(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sst-test", "0\t0.0\tt1\tE", header="0\t\tid\tsentence")
    report = run(raw, tokenizer_file)
    part = load_split(raw.parent / "prepared", "sst", "test")
    assert part.labels is None
    assert part.example_table().to_numpy().tolist() == [["t1", "E", ""]]
    assert report["tasks"]["sst"]["test"]["labels"] is None


def test_failures_leave_the_former_result(raw: Path, tokenizer_file: Path) -> None:
    run(raw, tokenizer_file)
    before = (raw.parent / "prepared" / "report.json").read_bytes()
    (raw / "sts-dev.csv").unlink()
    with pytest.raises(MtbertError, match=r"sts-dev.csv: not found; run `dvc repro fetch` again"):
        run(raw, tokenizer_file)
    assert (raw.parent / "prepared" / "report.json").read_bytes() == before


def test_unusable_tokenizers(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match=r"none.json: no tokenizer there; check encoder.source"):
        run(raw, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(MtbertError, match=r"bad.json: not a tokenizer file"):
        run(raw, tmp_path / "bad.json")
    Tokenizer(WordPiece({"[UNK]": 0, "a": 65536}, unk_token="[UNK]")).save(str(tmp_path / "large.json"))
    with pytest.raises(MtbertError, match="token id 65536 does not fit into 16 bits"):
        run(raw, tmp_path / "large.json")


def test_summary_tells_every_blemish(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "quora-dev", '0\tp1\ta\t"""b"\t', "2\tp3\ta\tb\t0.0")
    text = summary(run(raw, tokenizer_file, on_bad_row="drop"))
    lines = text.splitlines()
    assert lines[0].split() == [
        "task",
        "split",
        "rows",
        "kept",
        "bad",
        "repeated",
        "leaked",
        "too",
        "long",
        "wordpieces",
    ]
    assert lines[1].split() == ["sst", "train", "5", "5", "0", "2", "3", "0", "9"]
    assert f"left out {raw}/quora-dev.csv:2:14: missing is_duplicate" in text
    assert "sst: 3 train rows stand in dev (1) and test (2) too; kept (prepare.leakage: drop removes them)" in text
    assert "sts test: no file" in text
