"""mtbert predict: every way in and out, and one error with its line and remedy for whatever is wrong."""

import csv
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

import mtbert
from mtbert.cli import app
from mtbert.inference import command
from mtbert.inference import model as inference
from mtbert.tabular import csv_text

ROOT = Path(__file__).parent.parent.parent
PAIRS = [("A cat sleeps.", "A dog sleeps."), ('He said: "no", then left', "Größe, 日本"), ("three", "four five six")]
WORDS = ["A good film", "bad, really bad", "neither"]
FIXED = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture(autouse=True)
def _here(vivid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with models/baseline alone: no params.yaml, no data."""
    (tmp_path / "models").symlink_to(vivid / "models")
    monkeypatch.chdir(tmp_path)


def predict(*arguments: str, stdin: bytes = b"", status: int = 0) -> tuple[str, str]:
    """What the command prints to stdout and stderr."""
    done = CliRunner().invoke(app, ["predict", *arguments, *FIXED], input=stdin)
    assert done.exit_code == status, done.output
    return done.stdout, done.stderr


def scores(printed: str) -> list[float]:
    return [float(row["score"]) for row in csv.DictReader(io.StringIO(printed))]


def expected(model: mtbert.TrainedModel, pairs: list[tuple[str, str]] = PAIRS) -> list[float]:
    return [round(one.score, 6) for one in model.predict("sts", pairs) if isinstance(one, mtbert.Score)]


def test_arguments_to_csv(model: mtbert.TrainedModel) -> None:
    out, err = predict("baseline", "sts", *[text for pair in PAIRS for text in pair])
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["line", "sentence1", "sentence2", "score", "low", "high"]
    assert [(row["sentence1"], row["sentence2"]) for row in rows] == PAIRS
    assert (scores(out), rows[1]["line"], rows[1]["low"], rows[1]["high"], err) == (expected(model), "3", "0", "5", "")
    assert len(set(scores(out))) == 3


def test_labels_by_name_to_jsonl(model: mtbert.TrainedModel) -> None:
    out, _ = predict("models/baseline", "sst", *WORDS, "--format", "jsonl")
    for number, (line, found) in enumerate(zip(out.splitlines(), model.predict("sst", WORDS), strict=True), start=1):
        assert isinstance(found, mtbert.Label)
        shares = {name: pytest.approx(share, abs=1e-6) for name, share in found.probabilities.items()}
        assert json.loads(line) == {
            "line": number,
            "sentence": WORDS[number - 1],
            "label": found.label,
            "probabilities": shares,
        }


QUOTED = csv_text(["similarity", "sentence2", "sentence1"], [["?", two, one] for one, two in PAIRS])
INPUTS: dict[str, str] = {
    "plain.tsv": "".join(f"{one}\t{two}\n" for one, two in PAIRS),
    "header.tsv": "id\tsentence2\tsentence1\n" + "".join(f"x\t{two}\t{one}\r\n" for one, two in PAIRS),
    "table.csv": QUOTED,
    "marked.csv": "\ufeff" + QUOTED.replace("\n", "\r\n"),
    "tabs.csv": "sentence1\tsentence2\n"
    + "".join('"{}"\t{}\n'.format(one.replace('"', '""'), two) for one, two in PAIRS),
    "objects.jsonl": "".join(json.dumps({"sentence2": two, "sentence1": one}) + "\n" for one, two in PAIRS),
    "lists.ndjson": "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in PAIRS),
    "unknown.data": "".join(f"{one}\t{two}\n" for one, two in PAIRS).removesuffix("\n"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_files_of_pairs(name: str, model: mtbert.TrainedModel) -> None:
    Path(name).write_text(INPUTS[name], encoding="utf-8", newline="")
    out, err = predict("baseline", "sts", "--input", name)
    assert (scores(out), err) == (expected(model), "")


def test_standard_input(model: mtbert.TrainedModel) -> None:
    tsv = INPUTS["plain.tsv"].encode()
    assert scores(predict("baseline", "sts", stdin=tsv)[0]) == expected(model)
    assert scores(predict("baseline", "sts", "--input", "-", stdin=tsv)[0]) == expected(model)
    jsonl = INPUTS["objects.jsonl"].encode()
    assert scores(predict("baseline", "sts", "--input-format", "jsonl", stdin=jsonl)[0]) == expected(model)
    out, _ = predict("baseline", "sst", stdin="\n".join(WORDS).encode())
    labels = [row["label"] for row in csv.DictReader(io.StringIO(out))]
    assert labels == [one.label for one in model.predict("sst", WORDS) if isinstance(one, mtbert.Label)]
    assert predict("baseline", "sst", stdin=b"")[0].startswith("line,sentence,label,p(negative),")


def test_columns_by_name(model: mtbert.TrainedModel) -> None:
    text = csv_text(["left", "right"], PAIRS)
    Path("own.csv").write_text(text, encoding="utf-8")
    assert scores(predict("baseline", "sts", "-i", "own.csv", "--columns", "left,right")[0]) == expected(model)
    turned = expected(model, [(two, one) for one, two in PAIRS])
    assert scores(predict("baseline", "sts", "-i", "own.csv", "--columns", "right, left")[0]) == turned


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    Path("pairs.parquet").write_bytes(b"PAR1")
    _, err = predict("baseline", "sts", "-i", "pairs.parquet", status=1)
    what = "reading Parquet needs pyarrow; install it (pip install 'mtbert[parquet]'), or write CSV"
    assert err == f"error: pairs.parquet: {what}\n"


@pytest.mark.parametrize("name", ["out.csv", "deep/out.jsonl", "out.txt"])
def test_an_output_file(name: str, model: mtbert.TrainedModel) -> None:
    more = ("--format", "csv") if name == "out.txt" else ()
    out, err = predict("baseline", "sts", *PAIRS[0], "-o", name, *more)
    assert (out, err) == ("", "")
    text = Path(name).read_text(encoding="utf-8")
    found = [json.loads(text)["score"]] if name.endswith("jsonl") else scores(text)
    assert found == expected(model, PAIRS[:1])


def test_an_output_file_is_written_through_a_link() -> None:
    Path("latest.csv").symlink_to("out.csv")
    predict("baseline", "sst", "a", "-o", "latest.csv")
    assert Path("latest.csv").is_symlink() and Path("out.csv").read_text(encoding="utf-8").startswith("line,sentence")


def test_an_error_leaves_the_output_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "CHUNK", 2)
    Path("out.csv").write_text("old", encoding="utf-8")
    predict("baseline", "sst", "-o", "out.csv", stdin=b"a\nb\nc\n\n", status=1)
    assert Path("out.csv").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in Path().iterdir()) == ["models", "out.csv"]


def test_bad_rows_are_left_out_counted_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "CHUNK", 3)
    rows = [b"good", b"", b"\xff", b"fine", b" ", b"\x01", b"\t", b"", b"last"]
    out, err = predict("baseline", "sst", "--on-bad-row", "skip", stdin=b"\n".join(rows) + b"\n")
    found = list(csv.DictReader(io.StringIO(out)))
    assert [(row["line"], row["sentence"]) for row in found] == [("1", "good"), ("4", "fine"), ("9", "last")]
    assert err.splitlines() == [
        "warning: 6 bad rows left out:",
        "  standard input:2: empty sentence",
        "  standard input:3: sentence is not UTF-8 (byte 0xff at character 1)",
        "  standard input:5: empty sentence",
        "  standard input:6: sentence has no wordpiece (nothing but characters that the tokenizer drops)",
        "  standard input:7: empty sentence",
        "  and 1 more",
    ]


def test_what_is_cut_is_counted(model: mtbert.TrainedModel) -> None:
    _, err = predict("baseline", "sst", stdin=b"short\n" + b"word " * 300 + b"\n" + b"word " * 400 + b"\n")
    what = f"2 rows had more than {model.max_tokens} tokens and were cut; the first: standard input:2"
    assert err == f"warning: {what}\n"
    _, err = predict("baseline", "sst", stdin=b"word " * 300)
    assert err.startswith(f"warning: 1 row had more than {model.max_tokens} tokens and was cut; ")


def test_many_rows_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch, model: mtbert.TrainedModel) -> None:
    """Rows come out before all of them are read, in their order."""
    monkeypatch.setattr(inference, "CHUNK", 64)
    largest = 0
    real = inference.TrainedModel.tokenize

    def tokenize(self: inference.TrainedModel, task: str, rows: list) -> inference.Tokenized:
        nonlocal largest
        largest = max(largest, len(rows))
        return real(self, task, rows)

    monkeypatch.setattr(inference.TrainedModel, "tokenize", tokenize)
    pairs = [(f"number {n} " * (n % 7 + 1), f"{n % 13} of them") for n in range(1000)]
    Path("many.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in pairs), encoding="utf-8")
    out, _ = predict("baseline", "sts", "-i", "many.tsv")
    assert largest == 64
    assert scores(out) == pytest.approx(expected(model, pairs), abs=2e-6)


ERRORS = [
    ("baseline stss a b", b"", "models/baseline: has no task 'stss'; did you mean 'sts'?"),
    ("base sts a b", b"", "there is no folder base, and no models/base; did you mean 'baseline'?"),
    ("models sts a b", b"", "models: not a model: it has no config.json; name the folder of a trained run"),
    ("baseline sts a", b"", "sts takes pairs of sentences, and the number of texts, 1, is odd; give two per pair"),
    ("baseline sts a ''", b"", "argument 1: empty sentence2; correct the row, or leave such rows out with"),
    ("baseline sst a -i x", b"", "TEXT and --input exclude each other; give one of them"),
    ("baseline sts a b --columns one", b"", "--columns is for files, not for TEXT; leave it out"),
    ("baseline sst --columns one", b"a\n", "standard input: plain lines have no columns; leave --columns out"),
    ("baseline sst --input-format csv", b"id;sentence\n", "standard input:1: semicolons separate the columns;"),
    ("baseline sst --input-format csv", "sentence\n".encode("utf-16"), "standard input:1: the header is not UTF-8"),
    ("baseline sst -i none.csv", b"", "--input none.csv: cannot be read (No such file or directory); check"),
    ("baseline sst -i models", b"", "--input models: cannot be read (Is a directory); check"),
    ("baseline sst a -o x.txt", b"", "--output x.txt: unknown format; let the name end in .csv or"),
    ("baseline sst a -o models", b"", "--output models: unknown format; let the name end in"),
    ("baseline sst a -o models --format csv", b"", "--output models: is not a file; name a file"),
    ("baseline sst a -o x.csv --format table", b"", "--format table is for terminals"),
    ("baseline sst a --format xml", b"", "--format: 'xml' is unknown; valid: csv, jsonl, table"),
    ("baseline sst a --on-bad-row drop", b"", "--on-bad-row: 'drop' is unknown; valid: error, skip"),
    ("baseline sts --input-format lines", b"a\n", "standard input: sts needs two sentences a row"),
    ("baseline sts --columns a", b"a\tb\n", "--columns names 1 columns, but sts reads 2"),
    ("baseline sst", b"fine\n\n", "standard input:2: empty sentence; correct the row, or leave such rows out with"),
    ("baseline sst", b"fine\nb\xe4d\n", "standard input:2: sentence is not UTF-8 (byte 0xe4 at character 2); correct"),
    ("baseline sst", b"fine\n\x01\n", "standard input:2: sentence has no wordpiece"),
    ("baseline sts", b"a\tb\nc\n", "standard input:2: 1 fields between tabs, where 2 are expected"),
    ("baseline sts --columns one,two", b"on\ttwo\n", "standard input:1: no column 'one' in the header; did you mean"),
    ("baseline sts --input-format jsonl", b'["a", "b"]\n{"sentence1": "a"}\n', "standard input:2: no key 'sentence2'"),
    ("baseline sts --input-format jsonl", b'["a", 3]\n', "standard input:1: ['a', 3] is not two texts"),
    ("baseline sts --input-format jsonl", b"{\n", "standard input:1: not JSON (Expecting property name"),
    ("baseline sts --input-format jsonl", b"[" * 100_000, "standard input:1: not JSON"),
    ("baseline sts --input-format csv", b"", "standard input:1: no header; CSV starts with the names"),
    (
        "baseline sts --input-format csv",
        b"a,b\n1,2\n",
        "standard input:1: no column 'sentence1' in the header; valid: a, b; name",
    ),
    (
        "baseline sst --input-format csv",
        b"sentence,sentence\n1,2\n",
        "standard input:1: column 'sentence' appears twice",
    ),
    (
        "baseline sst --input-format csv",
        b'sentence,x\n"two\nlines",y\nz\n',
        "standard input:4: 1 fields, where the header has 2",
    ),
    ("baseline sst --input-format csv", b'sentence\n"a" b\n', "standard input:2: not CSV ("),
    ("baseline sst --input-format csv", b'sentence\nfine\n"never ends\nb\n', "standard input:3: not CSV ("),
    ("baseline sst --input-format csv", b"sentence\n\nb\n", "standard input:2: empty line"),
]


@pytest.mark.parametrize(("line", "stdin", "message"), ERRORS)
def test_an_error_is_one_line_with_its_place(line: str, stdin: bytes, message: str) -> None:
    _, err = predict(*shlex.split(line), stdin=stdin, status=1)
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtbert.inference.read.LONGEST", 1 << 20)
    _, err = predict("baseline", "sst", stdin=b"a\n" + b"x" * ((1 << 20) + 1), status=1)
    assert err == "error: standard input:2: a line of more than 1 MiB; is this a text file?\n"


def test_memory_that_runs_out_names_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate memory")

    monkeypatch.setattr(inference.TrainedModel, "score", fail)
    _, err = predict("baseline", "sst", "a", status=1)
    assert re.match(r"error: out of memory \(.*\); lower --batch-size, now 64", err)


def test_an_interrupt_writes_no_output_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inference.TrainedModel, "score", interrupt)
    _, err = predict("baseline", "sst", "a", "-o", "out.csv", status=130)
    assert err == "interrupted; out.csv was not written\n"
    assert not list(Path().glob("*.csv"))


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mtbert", "predict", *arguments, *FIXED]


def test_a_reader_that_stops_early_is_no_error() -> None:
    Path("many.txt").write_text("a good film\n" * 20_000, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        run("baseline", "sst", "-i", "many.txt"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline().startswith(b"line,sentence,label")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(120) == 128 + signal.SIGPIPE


PEAK = """
import sys
from pathlib import Path
from mtbert.inference.command import main
main("baseline", "sst", (), input_file=sys.argv[1], output_file="out.csv", device="cpu", precision="fp32")
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input() -> None:
    """Held in memory, these rows and their predictions would take some 100 MiB."""
    peaks = []
    for rows in (20_000, 200_000):
        Path("many.txt").write_text("".join(f"film {n % 997}\n" for n in range(rows)), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PEAK, "many.txt"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=900)
        peaks.append(int(done.stdout) / 1024)
        with Path("out.csv").open("rb") as file:
            assert sum(1 for _ in file) == rows + 1
    assert peaks[1] < peaks[0] + 16, f"{peaks} MiB"


def on_terminal(arguments: list[str], terminal: str) -> tuple[subprocess.CompletedProcess[bytes], str]:
    """Run with `terminal` (stdout or stderr) on a pseudoterminal; returns the process and what the terminal got."""
    main, side = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm"}
    shown: list[bytes] = []

    def drain() -> None:  # a terminal that nobody reads blocks its writer after 4 kB
        with suppress(OSError):  # the other end was closed
            while read := os.read(main, 1 << 16):
                shown.append(read)

    reader = Thread(target=drain)
    reader.start()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, terminal: side}
    done = subprocess.run(arguments, env=environment, timeout=300, **streams)
    os.close(side)
    reader.join()
    os.close(main)
    return done, b"".join(shown).decode()


def test_a_terminal_gets_a_table() -> None:
    """Control characters and markup in the text have no effect."""
    done, shown = on_terminal(run("baseline", "sst", "[bold]\x1b[2J fine", "second"), "stdout")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "somewhat positive" in shown and "[bold]\ufffd[2J fine" in shown and "\x1b[2J" not in shown


def test_progress_is_shown_on_a_terminal() -> None:
    Path("some.txt").write_text("fine\n" * 5000, encoding="utf-8")
    done, shown = on_terminal(run("baseline", "sst", "-i", "some.txt"), "stderr")
    assert done.returncode == 0 and done.stdout.count(b"\n") == 5001
    assert "rows" in shown


def test_wrong_options_are_found_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(command, "load", lambda *arguments, **_: loaded.append(arguments))
    predict("baseline", "sst", "a", "--format", "xml", status=1)
    assert not loaded
