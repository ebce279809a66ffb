"""Figure 4: malformed data is one error with its place and a remedy; harmless oddities are accepted.

tests/corpus/test_read.py tests the exact messages; here every fault is tried in every task, in a random row.
"""

import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mtbert.corpus import header, read
from mtbert.corpus.origins import Origin
from mtbert.corpus.rows import BadRow
from mtbert.errors import MtbertError
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import Task
from tests.corpus.whole import read_split
from tests.reliability.trial import Tally

Rows = list[list[str]]
"""A file before it is written: header and rows, a list of cells each."""

Spoil = Callable[[Rows, int], tuple[bytes, int]]
"""(rows, row to damage) -> the file's bytes and the line that the error must name."""

Vary = Callable[[Rows, int], bytes]
"""(rows, row to vary) -> the file's bytes; changes the rows to what must be read."""

ROWS = 12
WORDS = "the film is a quiet, long and beautiful story of two dogs ( and a cat ) ."


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Every fault and every oddity, for each task, at a random row (several in the full tier)."""
    tally = Tally(
        4, "malformed data, and harmless oddities", "100% refused with place and remedy, 0 false alarms", seed
    )
    rng = random.Random(seed)
    path = folder / "file.csv"
    for _ in range(1 if quick else 5):
        for task in TASKS.values():
            for name, spoil in FAULTS.items():
                tally.trial(*_judged(path, task, name, spoil, rng))
            for name, vary in ODDITIES.items():
                tally.trial(*_accepted(path, task, name, vary, rng))
    for bug, part, blind, name in BLIND:
        with patch.object(read, part, blind):
            outcomes = [_judged(path, task, name, FAULTS[name], rng)[0] for task in TASKS.values()]
        tally.control(not all(outcomes), bug)
    with patch.object(header, "INDEX_NAME", re.compile(r"[0-9]+")):
        tally.control(not _accepted(path, TASKS["sst"], "as it is", ODDITIES["as it is"], rng)[0], "a false alarm")
    tally.note = f"{len(FAULTS)} faults and {len(ODDITIES)} oddities × {len(TASKS)} tasks × a random row"
    return [tally]


def _judged(path: Path, task: Task, name: str, spoil: Spoil, rng: random.Random) -> tuple[bool, str]:
    """Whether a damaged file is refused with the right line, a column and a remedy; and a description."""
    row = rng.randrange(1, ROWS)
    data, line = spoil(_rows(task, rng), row)
    path.write_bytes(data)
    try:
        read_split(path, task, True, "error")
    except MtbertError as error:
        found = re.match(rf"{re.escape(str(path))}:(\d+):(\d+): [^;]+; .+", str(error), re.DOTALL)
        right = bool(found) and int(found[1]) == line and int(found[2]) >= 1 and "\n" not in str(error)  # type: ignore[index]
        return right, f"{task.name}, {name}, row {row}: expected line {line}, got: {error}"
    except Exception as error:
        return False, f"{task.name}, {name}, row {row}: {type(error).__name__}: {error}"
    return False, f"{task.name}, {name}, row {row}: accepted"


def _accepted(path: Path, task: Task, name: str, vary: Vary, rng: random.Random) -> tuple[bool, str]:
    """Whether an odd but valid file is read with its sentences and labels; and a description."""
    rows = _rows(task, rng)
    path.write_bytes(vary(rows, rng.randrange(1, ROWS)))
    try:
        examples, bad = read_split(path, task, True, "error")
    except Exception as error:
        return False, f"{task.name}, {name}: {type(error).__name__}: {error}"
    found = [[e.id, e.sentence1, *([e.sentence2] if task.is_pair else []), e.label] for e in examples]
    wanted = [[*row[1:-1], float(row[-1])] for row in rows[1:]]
    return found == wanted and not bad, f"{task.name}, {name}: read {found[:2]} for {wanted[:2]}"


def _rows(task: Task, rng: random.Random) -> Rows:
    labels = [0.2, 2.6, 5.0] if task.name == "sts" else range(int(task.high) + 1)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS.split(), k=rng.randint(2, 9)))

    header = ["", "id", *task.texts, task.label]
    return [
        header,
        *([str(n), f"id{n}", *(sentence() for _ in task.texts), str(rng.choice(labels))] for n in range(ROWS)),
    ]


def _bytes(rows: Rows, end: str = "\n", separator: str = "\t") -> bytes:
    return "".join(separator.join(row) + end for row in rows).encode()


def _line(change: Callable[[list[str]], list[str]], later: int = 0) -> Spoil:
    def spoil(rows: Rows, row: int) -> tuple[bytes, int]:
        rows[row + later] = change(rows[row])
        return _bytes(rows), row + later + 1

    return spoil


def _cell(column: int, text: str) -> Spoil:
    """Replace a cell by a text, in which {} stands for the old one."""

    def change(cells: list[str]) -> list[str]:
        new = list(cells)
        new[column] = text.replace("{}", cells[column])
        return new

    return _line(change)


def _byte(data: bytes) -> Spoil:
    """Bytes that are not UTF-8 inside a sentence."""

    def spoil(rows: Rows, row: int) -> tuple[bytes, int]:
        rows[row][2] = f"a \0 {rows[row][2]}"
        return _bytes(rows).replace(b"\0", data), row + 1

    return spoil


def _file(change: Callable[[Rows], bytes], line: int = 1) -> Spoil:
    return lambda rows, _: (change(rows), line)


def _header(change: Callable[[list[str]], list[str]]) -> Spoil:
    return _file(lambda rows: _bytes([change(rows[0]), *rows[1:]]))


def _cut(share: float) -> Spoil:
    """The file ends inside its last row; this share of the text before the label is left."""

    def cut(rows: Rows) -> bytes:
        before, _, last = _bytes(rows).rstrip(b"\n").rpartition(b"\n")
        return before + b"\n" + last[: max(1, int(last.rindex(b"\t") * share))]

    return _file(cut, ROWS + 1)


# Column and faulty text.
CELLS = [
    *((1, text) for text in ("", "  ", "{} x", "{} ", "{},1.0", '"{} , 1.0 \n{}x"', '"{}\tx"', "{}\x1b[2J", "{}\u2028x")),
    *((2, text) for text in ("", " \u2003\u00a0 ", "{}\0", "a\rb {}", "{}\tmore", "{}\nand more", '"{}', '"{}" and', '"{} " {}"')),
    (-2, ""),
    *((-1, text) for text in ("", " ", "9", "-1", "inf", "nan", "1e999", "four", "None", "True", "0x1", "1_0", "1,5", "٣", "3 stars")),
    *((-1, text) for text in ("{}\0", "{}\t5", "{}\t")),
]  # fmt: skip
FAULTS: dict[str, Spoil] = {
    **{f"cell {column}: {text!r}": _cell(column, text) for column, text in CELLS},
    **{f"bytes {data!r}": _byte(data) for data in (b"\xe9", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xff")},
    **{f"{mark!r} for tabs": _file(lambda rows, mark=mark: _bytes(rows, separator=mark)) for mark in ",;| "},  # type: ignore[misc]
    "one row with commas": _line(lambda cells: [",".join(cells)]),
    "one row with spaces": _line(lambda cells: ["    ".join(cells)]),
    "empty line": _line(lambda _: [""]),
    "label cell missing": _line(lambda cells: cells[:-1]),
    "two cells missing": _line(lambda cells: cells[:-2]),
    "only the index": _line(lambda cells: cells[:1]),
    "index in the id's place": _line(lambda cells: cells[1:]),
    "id twice": _line(lambda cells: cells, 1),
    "header missing": _file(lambda rows: _bytes(rows[1:])),
    "header renamed": _header(lambda cells: [*cells[:2], "text", *cells[3:]]),
    "header in capitals": _header(lambda cells: [cell.upper() for cell in cells]),
    "header without index": _header(lambda cells: cells[1:]),
    "header without id": _header(lambda cells: [cells[0], *cells[2:]]),
    "header without label": _header(lambda cells: cells[:-1]),
    "header with a column twice": _header(lambda cells: [*cells[:3], *cells[2:]]),
    "header with columns exchanged": _header(lambda cells: [cells[0], cells[2], cells[1], *cells[3:]]),
    "header with a further column": _header(lambda cells: [*cells, "mood"]),
    "header with an open quote": _header(lambda cells: [*cells[:2], f'"{cells[2]}', *cells[3:]]),
    "byte order mark": _file(lambda rows: b"\xef\xbb\xbf" + _bytes(rows)),
    "UTF-16": _file(lambda rows: _bytes(rows).decode().encode("utf-16")),
    "empty file": _file(lambda _: b""),
    "only blanks": _file(lambda _: b" \n\t\n"),
    "only the header": _file(lambda rows: _bytes(rows[:1]), 2),
    "binary file": _file(lambda _: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "cut inside the last row": _cut(0.6),
    "cut after the last sentence": _cut(1.0),
    "cut inside a character": _file(lambda rows: _bytes([*rows[:-1], ["9", "id", "caf"]])[:-1] + b"\xc3", ROWS + 1),
    "open quote in the last row": lambda rows, _: _cell(2, '"{}')(rows, ROWS),
}


def _sentence(read_as: str, written: str) -> Vary:
    def vary(rows: Rows, row: int) -> bytes:
        rows[row][2] = written
        data = _bytes(rows)
        rows[row][2] = read_as
        return data

    return vary


def _label(change: Callable[[str], str]) -> Vary:
    def vary(rows: Rows, row: int) -> bytes:
        return _bytes([*rows[:row], [*rows[row][:-1], change(rows[row][-1])], *rows[row + 1 :]])

    return vary


# Sentences that need no quotes, and some that are quoted in the file.
PLAIN = [
    *("one\u2028two\u2029three", "one\x85two\x0cthree\x0bfour", "one \ufeff two", "None", "NA", "NaN", "null", "42", "  a film . "),
    *("=1+1", "# a film", 'a 5" disk', 'the so-called "film"', "a, b; c | d", "👩‍👩‍👧 ❤️", "שלום \u202eabc\u202c", "e\u0301 n\u0303"),
    *("very " * 5000 + "long", "."),
]  # fmt: skip
QUOTED = ["a film", 'he said "no" to "it"', '"', "a\ttab", "two\nlines"]
ODDITIES: dict[str, Vary] = {
    "as it is": lambda rows, _: _bytes(rows),
    "CRLF": lambda rows, _: _bytes(rows, "\r\n"),
    "no newline at the end": lambda rows, _: _bytes(rows).rstrip(b"\n"),
    "empty lines at the end": lambda rows, _: _bytes(rows) + b"\n\n",
    "two index columns": lambda rows, _: _bytes([[str(n), *cells] for n, cells in enumerate(rows)]),
    **{text[:20]: _sentence(text, text) for text in PLAIN},
    **{f"quoted {text}": _sentence(text, '"' + text.replace('"', '""') + '"') for text in QUOTED},
    "label as a float": _label(lambda label: str(float(label))),
    "label with an exponent": _label(lambda label: f"{float(label):e}"),
    "label with a sign": _label(lambda label: f"+{label}"),
}


def _forgetful(real: Callable[..., Any], row: Any, layout: Any, _: Any, labels: Any) -> Any:
    return real(row, layout, {}, labels)


BLIND: list[tuple[str, str, Any, str]] = [
    ("labels not compared with their range", "_label", lambda _row, _task, text, _last: float(text), "cell -1: '9'"),
    ("cells not counted", "_check_width", lambda *_: None, r"cell -1: '{}\t5'"),
    ("ids not remembered", "_example", partial(_forgetful, read._example), "id twice"),
    ("encoding left to Python", "Lines", lambda path, _: path.read_text(encoding="utf-8").split("\n"), r"bytes b'\xff'"),
    ("no remedy", "users_own", lambda name: Origin(name, "", "", ""), "cell 1: ''"),
    ("the line counted from the header", "BadRow", lambda path, line, *rest: BadRow(path, line - 1, *rest), "cell -1: 'four'"),
]  # fmt: skip
