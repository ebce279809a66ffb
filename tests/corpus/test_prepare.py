"""From course files to arrays: exact texts, exact counts, exact places."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from mtbert.corpus.prepare import clean, prepare, summary
from mtbert.data.arrays import check_prepared, has_split, load_split
from mtbert.data.tokens import wrapper_for
from mtbert.errors import MtbertError
from mtbert.seal import seal
from mtbert.tasks.paper import QUORA, SST, STS, TASKS
from mtbert.training.fingerprint import fingerprint
from tests.corpus.whole import HEADERS, bert_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f", ".", "?", ",", "'", "##x"]
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
    tokenizer = bert_tokenizer(WORDS)
    # As sentence-transformers ships it; must not affect the arrays.
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def run(raw: Path, tokenizer_file: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"on_bad_row": "error", "leakage": "keep", "preprocess": "course", "max_tokens": 8}
    seal(raw)
    return prepare(raw, raw.parent / "prepared", tokenizer_file, **{**settings, **changes})


def texts(raw: Path, task: str, split: str, sentence: int = 1) -> list[str]:
    part = load_split(raw.parent / "prepared", TASKS[task], split)
    ids, offsets = (part.ids1, part.offsets1) if sentence == 1 else (part.ids2, part.offsets2)
    assert ids is not None and offsets is not None
    return [" ".join(WORDS[n] for n in ids[start:end]) for start, end in pairwise(offsets)]


@pytest.mark.parametrize(
    ("task", "text", "cleaned"),
    [
        (SST, " The ROCK 's  new .\u00a0", "the rock 's  new ."),
        (QUORA, "What's this, e.g. U.S.?  Really??", "what 's this , e .g . u .s . ? really ? ?"),
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
    sts = load_split(raw.parent / "prepared", TASKS["sts"], "train")
    assert sts.labels is not None and sts.labels.tolist() == [np.float32(2.6), 5.0]
    assert (raw.parent / "prepared" / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()


def test_examples_keep_the_original_text(raw: Path, tokenizer_file: Path) -> None:
    odd = ['0\tNA\t" x, ""a"" b\nNone"\tnull\t5', "1\tu2\ta\u2028b\tNone\t3.667"]
    put(raw, "sts-train", *odd)
    run(raw, tokenizer_file)
    table = load_split(raw.parent / "prepared", TASKS["sts"], "train").example_table()
    assert table.to_numpy().tolist() == [
        ["NA", ' x, "a" b\nNone', "null", "5.0"],
        ["u2", "a\u2028b", "None", "3.667"],
    ]
    sst = load_split(raw.parent / "prepared", TASKS["sst"], "train").example_table()
    assert sst.columns.tolist() == ["id", "sentence1", "label"]
    assert sst.iloc[0].tolist() == ["s1", " A B .", "3"]


def test_report_counts(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sst-dev", *ROWS["sst-dev"], "1\td2\te\t1")
    report = run(raw, tokenizer_file)
    assert json.loads((raw.parent / "prepared" / "report.json").read_text()) == report
    sst = report["tasks"]["sst"]["train"]
    assert (sst["rows_read"], sst["rows_kept"]) == (5, 5)
    assert sst["repeated"] == {"sentences": 2, "sentences_and_label": 1}
    assert sst["leaked"] == {
        "rows": 3,
        "dev": 3,
        "test": 2,
        "removed": 0,
        "listed": [
            {"line": 2, "id": "s1", "also_in": ["dev"]},
            {"line": 5, "id": "s4", "also_in": ["dev", "test"]},
            {"line": 6, "id": "s5", "also_in": ["dev", "test"]},
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
    assert load_split(raw.parent / "prepared", TASKS["quora"], "train").example_table()["id"].tolist() == ["q1", "q2"]


def test_a_split_without_any_row_left_is_an_error(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sst-train", "0\ts1\ta b .\t3")
    with pytest.raises(
        MtbertError, match=r"sst-train.csv: none of its 1 rows is left; check prepare.on_bad_row and prepare.leakage"
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
    assert load_split(raw.parent / "prepared", TASKS["quora"], "dev").example_table()["id"].tolist() == ["p3"]


def test_a_sentence_without_wordpieces_is_an_error_with_its_place(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sts-dev", "0\tv1\ta\tb\t0.0", "1\tv2\ta\t\u200b\t0.0")
    with pytest.raises(MtbertError, match=r"sts-dev.csv:3:8: sentence2 has no wordpiece .* correct the row"):
        run(raw, tokenizer_file)


def test_unlabelled_tests_have_no_labels(raw: Path, tokenizer_file: Path) -> None:
    put(raw, "sst-test", "0\t0.0\tt1\tE", header="0\t\tid\tsentence")
    report = run(raw, tokenizer_file)
    part = load_split(raw.parent / "prepared", TASKS["sst"], "test")
    assert part.labels is None
    assert part.example_table().to_numpy().tolist() == [["t1", "E", ""]]
    assert report["tasks"]["sst"]["test"]["labels"] is None


def test_failures_leave_the_former_result(raw: Path, tokenizer_file: Path) -> None:
    run(raw, tokenizer_file)
    before = (raw.parent / "prepared" / "report.json").read_bytes()
    (raw / "sts-dev.csv").unlink()
    with pytest.raises(MtbertError, match=r"sts-dev.csv: not found; run `dvc repro fetch`$"):
        run(raw, tokenizer_file)
    assert (raw.parent / "prepared" / "report.json").read_bytes() == before


def from_source(raw: Path, source: str, **file: str) -> None:
    about = {"source": source, "files": dict.fromkeys((path.name for path in raw.iterdir()), file)}
    (raw / "source.json").write_text(json.dumps(about))


COPIED = "; correct the row, or set prepare.on_bad_row: drop to leave it out"
MADE = "; set prepare.on_bad_row: drop to leave the row out (the file was {}, so do not edit it)"


@pytest.mark.parametrize(
    ("source", "file", "name", "remedy"),
    [
        ("folder", {"from": "data/course/x.csv"}, "data/course/x.csv", COPIED),
        ("sample", {}, "raw/sts-dev.csv", MADE.format("generated")),
        ("download", {"from": "https://u/x.csv"}, "raw/sts-dev.csv", MADE.format("downloaded from https://u/x.csv")),
    ],
)
@pytest.mark.parametrize(
    ("row", "where"), [("1\tv2\ta\tb\t9", "3:10: sim"), ("1\tv2\ta\t\u200b\t0", "3:8: sentence2 has")]
)
def test_a_bad_row_names_the_file_to_correct(
    raw: Path, tokenizer_file: Path, source: str, file: dict[str, str], name: str, remedy: str, row: str, where: str
) -> None:
    put(raw, "sts-dev", "0\tv1\ta\tb\t0.0", row)
    from_source(raw, source, **file)
    name = name if source == "folder" else f"{raw.parent}/{name}"
    with pytest.raises(MtbertError) as error:
        run(raw, tokenizer_file)
    assert str(error.value).startswith(f"{name}:{where}")
    assert str(error.value).endswith(remedy)
    report = run(raw, tokenizer_file, on_bad_row="drop")
    (listed,) = report["tasks"]["sts"]["dev"]["bad_rows"]["listed"]
    assert listed["where"].startswith(f"{name}:3:")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "1:1: the file is empty; replace the file by an intact copy"),
        (b"\tid\tsentence\tsentiment\n", "2:1: no row after the header; replace the file by an intact copy"),
        (b"\tid\tsentence\n0\ta\tb\n", "1:13: header: missing column sentiment; this file must"),
        (b"\tid\tsentence\tsentiment\n\xff", "2:1: not UTF-8 (byte 0xff at offset 23); save the file as UTF-8"),
        (b"\xef\xbb\xbf\tid\tsentence\tsentiment\n", "1:1: starts with a byte order mark; save the file"),
        (
            b"\tid\tsentence\tsentiment\n0\ta\tb",
            "2:6: missing column sentiment: the file ends inside this row; replace",
        ),
        (b"\tid\tsentence\tsentiment\n0\ta\tb\tx\n", "none of its 1 rows is left; check prepare.on_bad_row"),
    ],
)
def test_every_fault_of_a_file_names_the_one_to_correct(
    raw: Path, tokenizer_file: Path, data: bytes, fault: str
) -> None:
    (raw / "sst-train.csv").write_bytes(data)
    from_source(raw, "folder", **{"from": "data/course/x.csv"})
    with pytest.raises(MtbertError) as error:
        run(raw, tokenizer_file, on_bad_row="drop" if fault.startswith("none of") else "error")
    assert str(error.value).removeprefix("data/course/x.csv:").lstrip().startswith(fault)


def test_a_file_that_dvc_tracks_is_unprotected_before_it_is_corrected(
    raw: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raw.parent)
    Path("x.csv.dvc").touch()
    put(raw, "sts-dev", "0\tv1\ta\tb\t9")
    from_source(raw, "folder", **{"from": "x.csv"})
    with pytest.raises(MtbertError, match=r"^x.csv:2:10: .*; run `dvc unprotect x.csv` and correct the row, or set"):
        run(raw, tokenizer_file)
    (raw / "sts-dev.csv").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(MtbertError, match=r"^x.csv:1:1: .* mark; run `dvc unprotect x.csv` and save the file as UTF-8"):
        run(raw, tokenizer_file)


def test_a_damaged_list_of_sources_is_an_error(raw: Path, tokenizer_file: Path) -> None:
    for text in ("{", "[]", '{"source": "folder", "files": {}}'):
        (raw / "source.json").write_text(text)
        with pytest.raises(MtbertError, match=r"source.json: cannot be read.*dvc repro --force --single-item fetch"):
            run(raw, tokenizer_file)


def test_labels_of_another_scale_are_warned_of(raw: Path, tokenizer_file: Path) -> None:
    assert run(raw, tokenizer_file)["warnings"] == []
    put(raw, "sts-train", "0\tu1\ta\tb\t0.2", "1\tu2\tb\tb\t1.0")
    put(raw, "sts-dev", "0\tv1\ta\tb\t5")
    (warning,) = run(raw, tokenizer_file)["warnings"]
    assert warning.startswith(
        f"{raw}/sts-train.csv: all 2 similarity labels are at most 1, but the range is 0 to 5; they"
    )
    assert json.loads((raw.parent / "prepared" / "report.json").read_text())["warnings"] == [warning]
    put(raw, "sts-train", "0\tu1\ta\tb\t0.2", "1\tu2\tb\tb\t1.01")
    assert run(raw, tokenizer_file)["warnings"] == []


def test_a_cased_tokenizer_is_warned_of_where_texts_are_lower_cased(raw: Path, tokenizer_file: Path) -> None:
    bert_tokenizer(WORDS, lowercase=False).save(str(tokenizer_file))
    (warning,) = run(raw, tokenizer_file)["warnings"]
    assert warning.startswith(f"{tokenizer_file}: the tokenizer is cased, but prepare.preprocess")
    assert run(raw, tokenizer_file, preprocess="none")["warnings"] == []


def test_a_new_test_file_changes_nothing_that_training_reads(raw: Path, tokenizer_file: Path) -> None:
    prepared = raw.parent / "prepared"

    def read_by_training() -> dict[Path, bytes]:
        paths = [prepared / "tokenizer.json", *(prepared / "train").rglob("*"), *(prepared / "dev").rglob("*")]
        return {path: path.read_bytes() for path in paths if path.is_file()}

    run(raw, tokenizer_file)
    before = read_by_training()
    assert not has_split(prepared, "sts", "test")
    put(raw, "sts-test", "0\tw1\ta\tb", header="\tid\tsentence1\tsentence2")
    run(raw, tokenizer_file)
    assert has_split(prepared, "sts", "test")
    assert read_by_training() == before


@pytest.mark.parametrize("name", ["tokenizer.json", "train/sst/labels.npy", "dev/sts/examples.csv", "dev/sha256.json"])
def test_a_part_that_was_changed_or_removed_is_named(raw: Path, tokenizer_file: Path, name: str) -> None:
    run(raw, tokenizer_file)
    prepared = raw.parent / "data/prepared"  # where the remedy knows the stage
    prepared.parent.mkdir()
    (raw.parent / "prepared").rename(prepared)
    (prepared / "test/sst/labels.npy").unlink()
    check_prepared(prepared, ["train", "dev"])
    with pytest.raises(MtbertError, match=r"test/sst/labels.npy: not found"):
        check_prepared(prepared, ["test"])
    data = (prepared / name).read_bytes()
    (prepared / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(MtbertError, match=rf"prepared/{name}: .*; run `dvc repro -f -s prepare`, then"):
        check_prepared(prepared, ["train", "dev"])
    (prepared / name).unlink()
    with pytest.raises(MtbertError, match=rf"prepared/{name}: not found; run `dvc repro .*prepare`"):
        check_prepared(prepared, ["train", "dev"])


@pytest.mark.parametrize(("place", "stage"), [("", "prepare"), ("studies/mine", "inputs")])
def test_a_fresh_tree_names_the_stage_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, stage: str
) -> None:
    (tmp_path / "studies/mine").mkdir(parents=True)
    (tmp_path / "studies/study.yaml").touch()
    monkeypatch.chdir(tmp_path / place)
    folder = Path("data/prepared")
    for read in (
        lambda: check_prepared(folder, ["train"]),
        lambda: load_split(folder, TASKS["sst"], "train"),
        lambda: fingerprint({}, [folder / "train"]),
        lambda: wrapper_for(folder / "tokenizer.json", 9, ("[CLS]", "[SEP]")),
    ):
        with pytest.raises(MtbertError, match=rf": not found; run `dvc repro {stage}`$"):
            read()
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").touch()
    with pytest.raises(
        MtbertError, match=rf"json: not a tokenizer file .*; run `dvc repro -f -s {stage}`, then `dvc repro`$"
    ):
        wrapper_for(folder / "tokenizer.json", 9, ("[CLS]", "[SEP]"))


def test_unusable_tokenizers(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match=r"none.json: not found; run `dvc repro encoder`"):
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
    assert " ".join(lines[0].split()) == "task split rows kept bad repeated leaked too long wordpieces"
    assert lines[1].split() == ["sst", "train", "5", "5", "0", "2", "3", "0", "9"]
    assert f"left out {raw}/quora-dev.csv:2:14: missing is_duplicate" in text
    assert "sst: 3 train rows are also in dev (1) and test (2); kept (prepare.leakage: drop removes them)" in text
    assert "sts test: no file" in text
