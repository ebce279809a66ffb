"""Figure 4: malformed data is one error with its place and remedy; harmless oddities are accepted."""

import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mtbert.corpus import header, read
from mtbert.corpus.origins import Origin
from mtbert.corpus.read import BadRow, read_split
from mtbert.errors import MtbertError
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import Task
from reliability.trial import Tally, Trial

Rows = list[list[str]]
"""A file before it is written: header and rows, a list of cells each."""

ROWS = 12


def run(quick: bool, seed: int, folder: Path) -> list[Trial]:
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
    return [tally.done(f"{len(FAULTS)} faults and {len(ODDITIES)} oddities × {len(TASKS)} tasks × a random row")]


def _judged(path: Path, task: Task, name: str, spoil: "Spoil", rng: random.Random) -> tuple[bool, str]:
    """Whether a spoilt file is refused at the right line, with column and remedy, and what was tried."""
    row = rng.randrange(1, ROWS)
    data, line = spoil(_rows(task, rng), row, task)
    path.write_bytes(data)
    try:
        read_split(path, task, True, "error")
    except MtbertError as error:
        found = re.match(rf"{re.escape(str(path))}:(\d+):(\d+): [^;]+; .+", str(error), re.DOTALL)
        right = bool(found) and int(found[1]) == line and int(found[2]) >= 1 and "\n" not in str(error)  # type: ignore[index]
        return right, f"{task.name}, {name}, row {row}: expected line {line}, told: {error}"
    except Exception as error:
        return False, f"{task.name}, {name}, row {row}: {type(error).__name__}: {error}"
    return False, f"{task.name}, {name}, row {row}: accepted"


def _accepted(path: Path, task: Task, name: str, vary: "Vary", rng: random.Random) -> tuple[bool, str]:
    """Whether an odd but sound file is read, and gives the sentences and labels that stand in it."""
    rows = _rows(task, rng)
    data, expected = vary(rows, rng.randrange(1, ROWS), task)
    path.write_bytes(data)
    try:
        examples, bad = read_split(path, task, True, "error")
    except Exception as error:
        return False, f"{task.name}, {name}: {type(error).__name__}: {error}"
    found = [[e.id, e.sentence1, *([e.sentence2] if task.is_pair else []), e.label] for e in examples]
    wanted = [[*row[1:-1], float(row[-1])] for row in expected[1:]]
    return found == wanted and not bad, f"{task.name}, {name}: read {found[:2]} for {wanted[:2]}"


def _rows(task: Task, rng: random.Random) -> Rows:
    words = [
        "the",
        "film",
        "is",
        "a",
        "quiet,",
        "long",
        "and",
        "beautiful",
        "story",
        "of",
        "two",
        "dogs",
        "(",
        "and",
        "a",
        "cat",
        ")",
        ".",
    ]

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(2, 9)))

    def label() -> str:
        return str(rng.choice([0.2, 2.6, 5.0])) if task.name == "sts" else str(rng.randint(0, int(task.high)))

    header = ["", "id", *task.texts, task.label]
    return [header, *([str(n), f"id{n}", *(sentence() for _ in task.texts), label()] for n in range(ROWS))]


def _bytes(rows: Rows, end: str = "\n", separator: str = "\t") -> bytes:
    return "".join(separator.join(row) + end for row in rows).encode()


Spoil = Callable[[Rows, int, Task], tuple[bytes, int]]
"""(rows, row to spoil) -> the file's bytes and the line that the error must name."""

Vary = Callable[[Rows, int, Task], tuple[bytes, Rows]]
"""(rows, row to vary) -> the file's bytes and the rows that must be read."""


def _cell(column: int, value: Callable[[str], str]) -> Spoil:
    def spoil(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
        rows[row][column] = value(rows[row][column])
        return _bytes(rows), row + 1

    return spoil


def _cells(change: Callable[[list[str]], list[str]], by: int = 0) -> Spoil:
    def spoil(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
        rows[row] = change(rows[row])
        return _bytes(rows), row + 1 + by

    return spoil


def _label_is(value: str) -> Spoil:
    return _cell(-1, lambda _: value)


def _whole(change: Callable[[bytes], bytes], line: int = 1) -> Spoil:
    return lambda rows, row, task: (change(_bytes(rows)), line)


def _header(change: Callable[[list[str]], list[str]]) -> Spoil:
    return lambda rows, row, task: (_bytes([change(rows[0]), *rows[1:]]), 1)


def _byte(byte: bytes) -> Spoil:
    """A byte that is not UTF-8 inside the first sentence."""

    def spoil(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
        rows[row][2] = f"a \0 {rows[row][2]}"
        return _bytes(rows).replace(b"\0", byte), row + 1

    return spoil


def _out_of_range(rows: Rows, row: int, task: Task) -> tuple[bytes, int]:
    rows[row][-1] = f"{task.high + 1:g}"
    return _bytes(rows), row + 1


def _duplicate(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
    rows[row + 1][1] = rows[row][1]
    return _bytes(rows), row + 2


def _cut_at(share: float) -> Spoil:
    """The file ends inside its last row."""

    def spoil(rows: Rows, _row: int, _task: Task) -> tuple[bytes, int]:
        lines = _bytes(rows).splitlines(keepends=True)
        last = lines[-1].rstrip(b"\n")
        return b"".join(lines[:-1]) + last[: max(1, int(len(last.rpartition(b"\t")[0]) * share))], len(lines)

    return spoil


def _cut_inside_a_character(rows: Rows, _row: int, _task: Task) -> tuple[bytes, int]:
    rows[-1][2] = "a café"
    data = _bytes(rows)
    return data[: data.rindex(b"\xc3") + 1], len(rows)


def _open_quote(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
    rows[row][2] = f'"{rows[row][2]}'
    return _bytes(rows), row + 1


def _separated_by(mark: str) -> Spoil:
    return lambda rows, row, task: (_bytes(rows, separator=mark), 1)


def _row_separated_by(mark: str) -> Spoil:
    def spoil(rows: Rows, row: int, _task: Task) -> tuple[bytes, int]:
        rows[row] = [mark.join(rows[row])]
        return _bytes(rows), row + 1

    return spoil


FAULTS: dict[str, Spoil] = {
    "commas for tabs": _separated_by(","),
    "semicolons for tabs": _separated_by(";"),
    "bars for tabs": _separated_by("|"),
    "spaces for tabs": _separated_by(" "),
    "one row with commas": _row_separated_by(","),
    "one row with spaces": _row_separated_by("    "),
    "header missing": lambda rows, row, task: (_bytes(rows[1:]), 1),
    "header renamed": _header(lambda cells: [*cells[:2], "text", *cells[3:]]),
    "header in capitals": _header(lambda cells: [cell.upper() for cell in cells]),
    "header without index": _header(lambda cells: cells[1:]),
    "header without id": _header(lambda cells: [cells[0], *cells[2:]]),
    "header without label": _header(lambda cells: cells[:-1]),
    "header with a column twice": _header(lambda cells: [*cells[:3], *cells[2:]]),
    "header with columns exchanged": _header(lambda cells: [cells[0], cells[2], cells[1], *cells[3:]]),
    "header with a further column": _header(lambda cells: [*cells, "mood"]),
    "header with an open quote": _header(lambda cells: [*cells[:2], f'"{cells[2]}', *cells[3:]]),
    "UTF-8 byte order mark": _whole(lambda data: b"\xef\xbb\xbf" + data),
    "UTF-16": _whole(lambda data: data.decode().encode("utf-16")),
    "a byte of Latin-1": _byte(b"\xe9"),
    "a lone continuation byte": _byte(b"\x80"),
    "an overlong encoding": _byte(b"\xc0\xaf"),
    "a surrogate in UTF-8": _byte(b"\xed\xa0\x80"),
    "byte 0xff": _byte(b"\xff"),
    "empty file": _whole(lambda _: b""),
    "only blanks": _whole(lambda _: b" \n\t\n"),
    "only the header": lambda rows, row, task: (_bytes(rows[:1]), 2),
    "binary file": _whole(lambda _: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "cut inside the last row": _cut_at(0.6),
    "cut after the last sentence": _cut_at(1.0),
    "cut inside a character": _cut_inside_a_character,
    "NUL in a sentence": _cell(2, lambda text: f"{text[:3]}\0{text[3:]}"),
    "NUL in the label": _cell(-1, lambda text: f"{text}\0"),
    "carriage return in a sentence": _cell(2, lambda text: f"{text[:3]}\r{text[3:]}"),
    "empty line": lambda rows, row, task: (_bytes([*rows[:row], [""], *rows[row:]]), row + 1),
    "empty id": _cell(1, lambda _: ""),
    "blank id": _cell(1, lambda _: "  "),
    "id twice": _duplicate,
    "id of two words": _cell(1, lambda name: f"{name} x"),
    "id with a blank behind": _cell(1, lambda name: f"{name} "),
    "id with a comma": _cell(1, lambda name: f"{name},1.0"),
    "id of two lines": _cell(1, lambda name: f'"{name} , 1.0 \n{name}x"'),
    "id with a quoted tab": _cell(1, lambda name: f'"{name}\tx"'),
    "id with an escape": _cell(1, lambda name: f"{name}\x1b[2J"),
    "id with a line separator": _cell(1, lambda name: f"{name}\u2028x"),
    "empty sentence": _cell(2, lambda _: ""),
    "sentence of blanks": _cell(2, lambda _: " \u2003\u00a0 "),
    "last sentence empty": _cell(-2, lambda _: ""),
    "label missing": _label_is(""),
    "label blank": _label_is(" "),
    "label out of range": _out_of_range,
    "label negative": _label_is("-1"),
    "label infinite": _label_is("inf"),
    "label NaN": _label_is("nan"),
    "label huge": _label_is("1e999"),
    "label a word": _label_is("four"),
    "label None": _label_is("None"),
    "label true": _label_is("True"),
    "label in hexadecimal": _label_is("0x1"),
    "label with an underscore": _label_is("1_0"),
    "label with a comma": _label_is("1,5"),
    "label in Arabic digits": _label_is("٣"),
    "label with a unit": _label_is("3 stars"),
    "label cell missing": _cells(lambda cells: cells[:-1]),
    "two cells missing": _cells(lambda cells: cells[:-2]),
    "only the index": _cells(lambda cells: cells[:1]),
    "a further cell": _cells(lambda cells: [*cells, "5"]),
    "a tab in a sentence": _cell(2, lambda text: f"{text}\tmore"),
    "a trailing tab": _cells(lambda cells: [*cells, ""]),
    "newline in a sentence": _cell(2, lambda text: f"{text}\nand more"),
    "open quote": _open_quote,
    "open quote in the last row": lambda rows, row, task: _open_quote(rows, len(rows) - 1, task),
    "text after a quote": _cell(2, lambda text: f'"{text}" and'),
    "lone quote inside a quoted cell": _cell(2, lambda text: f'"{text} " {text}"'),
    "index in the id's place": _cells(lambda cells: cells[1:]),
}


def _unchanged(rows: Rows, _row: int, _task: Task) -> tuple[bytes, Rows]:
    return _bytes(rows), rows


def _text(sentence: str) -> Vary:
    def vary(rows: Rows, row: int, _task: Task) -> tuple[bytes, Rows]:
        rows[row][2] = sentence
        return _bytes(rows), rows

    return vary


def _quoted(sentence: str) -> Vary:
    def vary(rows: Rows, row: int, _task: Task) -> tuple[bytes, Rows]:
        written = [list(cells) for cells in rows]
        rows[row][2] = sentence
        written[row][2] = '"' + sentence.replace('"', '""') + '"'
        return _bytes(written), rows

    return vary


def _label_written(change: Callable[[str], str]) -> Vary:
    def vary(rows: Rows, row: int, _task: Task) -> tuple[bytes, Rows]:
        written = [list(cells) for cells in rows]
        written[row][-1] = change(rows[row][-1])
        return _bytes(written), rows

    return vary


def _index_columns(rows: Rows, _row: int, _task: Task) -> tuple[bytes, Rows]:
    return _bytes([["0", *cells] if n == 0 else [str(n), *cells] for n, cells in enumerate(rows)]), rows


ODDITIES: dict[str, Vary] = {
    "as it is": _unchanged,
    "CRLF": lambda rows, row, task: (_bytes(rows, "\r\n"), rows),
    "no newline at the end": lambda rows, row, task: (_bytes(rows).rstrip(b"\n"), rows),
    "empty lines at the end": lambda rows, row, task: (_bytes(rows) + b"\n\n", rows),
    "two index columns": _index_columns,
    "line separator U+2028": _text("one\u2028two\u2029three"),
    "next line and form feed": _text("one\x85two\x0cthree\x0bfour"),
    "byte order mark inside": _text("one \ufeff two"),
    "None": _text("None"),
    "NA": _text("NA"),
    "NaN": _text("NaN"),
    "null": _text("null"),
    "a number": _text("42"),
    "blanks around": _text("  a film . "),
    "a formula": _text("=1+1"),
    "a comment sign": _text("# a film"),
    "a quote inside": _text('a 5" disk'),
    "a quote at the end": _text('the so-called "film"'),
    "commas, semicolons, bars": _text("a, b; c | d"),
    "emoji": _text("👩‍👩‍👧 ❤️"),
    "right to left": _text("שלום \u202eabc\u202c"),
    "combining marks": _text("e\u0301 n\u0303"),
    "over-long": _text("very " * 5000 + "long"),
    "a single character": _text("."),
    "quoted": _quoted("a film"),
    "quotes doubled": _quoted('he said "no" to "it"'),
    "only a quote": _quoted('"'),
    "quoted tab": _quoted("a\ttab"),
    "quoted newline": _quoted("two\nlines"),
    "label as a float": _label_written(lambda label: str(float(label))),
    "label with an exponent": _label_written(lambda label: f"{float(label):e}"),
    "label with a sign": _label_written(lambda label: f"+{label}"),
}


def _forgetful(real: Callable[..., Any], row: Any, layout: Any, _: Any, labels: Any) -> Any:
    return real(row, layout, {}, labels)


BLIND: list[tuple[str, str, Any, str]] = [
    (
        "labels not compared with their range",
        "_label",
        lambda _row, _task, text, _last: float(text),
        "label out of range",
    ),
    ("cells not counted", "_check_width", lambda *_: None, "a further cell"),
    ("ids not remembered", "_example", partial(_forgetful, read._example), "id twice"),
    ("encoding left to Python", "Lines", lambda path, _: path.read_text(encoding="utf-8").split("\n"), "byte 0xff"),
    ("no remedy", "users_own", lambda name: Origin(name, "", ""), "empty id"),
    (
        "the line counted from the header",
        "BadRow",
        lambda path, line, *rest: BadRow(path, line - 1, *rest),
        "label a word",
    ),
]
