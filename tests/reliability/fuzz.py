"""Figure 5: rows are read back as they were written, and a file of mangled bytes is read or refused without losing a row silently."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from mtbert.corpus.rows import BadRow, Example
from mtbert.errors import MtbertError
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import Task
from tests.corpus.whole import read_split
from tests.reliability.trial import Tally

Reader = Callable[[Path, Task, bool, Any], tuple[list[Example], list[BadRow]]]

SENTENCES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1, max_size=30
).filter(lambda text: bool(text.strip()) and not any("\t" in line for line in text.split("\n")[1:]))

# Rows to mangle, of one line each except the third.
WRITTEN = {
    "sst": ["0\tida\tA film .\t3", '1\tidb\tSo-called "art"\t0', '2\tidc\t"Two\nlines"\t1', "3\tidd\tGood 😀\t4", "4\tide\tBad\t2"],
    "quora": ["0\tida\tWho ?\tWho is it ?\t1.0", '1\tidb\t"""Why"" ?"\tHow ?\t0.0', '2\tidc\t"Two\nlines"\tx\t1.0', "3\tidd\té\tf\t0.0"],
    "sts": ["0\tida\tA dog.\tA cat.\t2.6", '1\tidb\t5" disk\tA disk\t5', '2\tidc\t"Two\nlines"\tx\t1.0', "3\tidd\té\tf\t0.25"],
}  # fmt: skip
SOME = [b'"', b"\t", b"\n", b"\r", b"\r\n", b"\0", b",", b"\xff", b"\xe2\x80", b'""', b'\t"', b'"\n', b"\n\n", b"9"]
KINDS = ["flip", "insert", "delete", "repeat", "cut"]
EDITS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 400), st.sampled_from(SOME)), min_size=1, max_size=4)


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """5,000 cases, half of each kind; 300 in the quick tier."""
    tally = Tally(5, "write and parse back; bytes mangled", "0 raw tracebacks, 0 silent losses", seed)
    cases = 150 if quick else 2500
    for check in (_round_trip, _mangled):
        counted, fault = _try(check, read_split, cases, seed, folder)
        for _ in range(counted):
            tally.trial(True, "")
        if fault:
            tally.trial(False, f"{check.__name__[1:]}: {fault}")
    planted: list[tuple[str, Any, Reader]] = [
        ("rows split by the csv module", _mangled, _csv_reader),
        ("a decoding error passed on", _mangled, _undecoded),
        ("malformed rows dropped silently", _mangled, _silent),
        ("sentences stripped", _round_trip, _stripped),
        ("lines split at U+2028", _round_trip, _splitlines),
    ]
    for bug, check, reader in planted:
        tally.control(bool(_try(check, reader, 1500, seed, folder)[1]), bug)
    return [tally]


def _try(check: Any, reader: Reader, cases: int, number: int, folder: Path) -> tuple[int, str]:
    """Test a property on this many cases; how many passed, and the smallest that failed, if any."""
    held = [0]

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(data=st.data(), name=st.sampled_from(list(TASKS)))
    def cases_of(data: st.DataObject, name: str) -> None:
        check(reader, folder / "file.csv", TASKS[name], data.draw)
        held[0] += 1

    try:
        cases_of()
    except Exception as error:
        return held[0], f"{type(error).__name__}: {error}"
    return held[0], ""


def _round_trip(reader: Reader, path: Path, task: Task, draw: Any) -> None:
    texts = draw(st.lists(st.tuples(*[SENTENCES for _ in task.texts]), min_size=1, max_size=5))
    labels = [draw(st.floats(0, 5) if task.name == "sts" else st.integers(0, int(task.high))) for _ in texts]
    out = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(out, delimiter="\t", lineterminator=draw(st.sampled_from(["\n", "\r\n"])), quoting=quoting)
    writer.writerow(["", "id", *task.texts, task.label])
    writer.writerows([n, f"id{n}", *row, labels[n]] for n, row in enumerate(texts))
    path.write_bytes(out.getvalue().encode())
    examples, bad = reader(path, task, True, "error")
    found = [(e.id, e.sentence1, e.sentence2, e.label) for e in examples]
    wanted = [(f"id{n}", row[0], row[1] if task.is_pair else None, float(labels[n])) for n, row in enumerate(texts)]
    assert found == wanted and not bad, f"{found} for {wanted}"


def _mangled(reader: Reader, path: Path, task: Task, draw: Any) -> None:
    header = "\t".join(["", "id", *task.texts, task.label])
    rows = WRITTEN[task.name]
    data = _edited("\n".join([header, *rows, ""]).encode(), draw(EDITS), start=len(header) + 1)
    path.write_bytes(data)
    try:
        examples, bad = reader(path, task, True, "drop")
    except MtbertError:
        return
    strict = ""
    try:
        reader(path, task, True, "error")
    except MtbertError as error:
        strict = str(error)
    assert bool(bad) == bool(strict), f"drop lists {bad}, error says {strict!r}"
    # A line that is still one of the rows must be read as that row, or be reported as a bad row or as part of one.
    read_at = {example.line: example for example in examples}
    starts = sorted({*read_at, *(row.line for row in bad)})
    lines = data.decode().replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines[1:], start=2):
        if line not in rows:
            continue
        owner = max((start for start in starts if start <= number), default=0)
        if number in read_at:
            cells = line.split("\t")
            assert read_at[number].id == cells[1] and read_at[number].label == float(cells[-1]), (
                f"line {number} misread"
            )
        else:
            assert owner and owner not in read_at, f"line {number} is lost silently: {line!r}"


def _edited(data: bytes, edits: list[tuple[str, int, bytes]], start: int) -> bytes:
    """The bytes after `start` changed at some places."""
    for kind, place, some in edits:
        at = start + place % max(1, len(data) - start)
        if kind == "flip":
            data = data[:at] + bytes([data[at] ^ (1 << place % 8)]) + data[at + 1 :] if at < len(data) else data
        elif kind == "insert":
            data = data[:at] + some + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + place % 7 :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 25] + data[at:]
        else:
            data = data[:at]
    return data


def _csv_reader(path: Path, task: Task, labelled: bool, on_bad_row: Any) -> tuple[list[Example], list[BadRow]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise MtbertError("not UTF-8") from None
    examples = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    start = reader.line_num + 1
    for row in reader:
        if len(row) == 3 + len(task.texts) and row[1] != "id":
            try:
                examples.append(Example(row[1], row[2], row[3] if task.is_pair else None, float(row[-1]), start))
            except ValueError:
                raise MtbertError("label") from None
        start = reader.line_num + 1
    return examples, []


def _undecoded(path: Path, task: Task, labelled: bool, on_bad_row: Any) -> tuple[list[Example], list[BadRow]]:
    path.read_text(encoding="utf-8")
    return read_split(path, task, labelled, on_bad_row)


def _silent(path: Path, task: Task, labelled: bool, on_bad_row: Any) -> tuple[list[Example], list[BadRow]]:
    return read_split(path, task, labelled, "drop")[0], []


def _stripped(path: Path, task: Task, labelled: bool, on_bad_row: Any) -> tuple[list[Example], list[BadRow]]:
    examples, bad = read_split(path, task, labelled, on_bad_row)
    return [example._replace(sentence1=example.sentence1.strip()) for example in examples], bad


def _splitlines(path: Path, task: Task, labelled: bool, on_bad_row: Any) -> tuple[list[Example], list[BadRow]]:
    path.write_bytes("\n".join(path.read_bytes().decode().splitlines()).encode())
    return read_split(path, task, labelled, on_bad_row)
