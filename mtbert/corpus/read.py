"""A strict reader of the course's files: every malformed row is told with its file, line and column.

The format: UTF-8, tab separated, a header (one or two unnamed index columns, `id`, the sentences, the label unless the
file is an unlabelled test file), default CSV quoting: a field that starts with `"` ends at the next lone `"`, and `""`
inside stands for one. A quoted sentence may hold newlines. An id is one printable word without commas. The rows are split
here rather than by the csv module, because that reads an unbalanced quote on across the following rows, and cannot tell where
a field stood.

Columns count characters from 1; lines count newline characters, as editors do.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from mtbert.corpus.hashes import Met
from mtbert.corpus.lines import Lines
from mtbert.corpus.origins import Origin, users_own
from mtbert.corpus.rows import BadRow, Block, Example
from mtbert.errors import MtbertError
from mtbert.tasks.paper import Task

INDEX_NAME = re.compile(r"|[0-9]+|Unnamed: [0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
CLOSING_QUOTE = re.compile(r'(?:[^"]|"")*"(?!")')


class _Fault(Exception):
    """A bad row on its way up; `resume` is the line at which the next row starts."""

    def __init__(
        self, line: int, column: int, what: str, resume: int | None = None, *, truncated: bool = False
    ) -> None:
        super().__init__(what)
        self.place, self.what, self.resume, self.truncated = (line, column), what, resume, truncated


class _Row(NamedTuple):
    fields: list[str]
    places: list[tuple[int, int]] | None  # line and column of each field; None where no field is quoted
    line: int
    next_line: int

    def place(self, field: int) -> tuple[int, int]:
        if self.places is not None:
            return self.places[field]
        return self.line, 1 + sum(len(text) + 1 for text in self.fields[:field])


def read_blocks(
    path: Path,
    task: Task,
    labelled: bool,
    on_bad_row: Literal["error", "drop"],
    origin: Origin | None = None,
) -> Iterator[tuple[Block, list[BadRow]]]:
    """Read one file of the course format, some thousand rows at a time.

    Memory grows with the file by the hash of each id alone. Where an id may have stood before, the file is read again from its
    start, with the ids themselves at hand.

    Args:
        path: the file.
        task: whose columns and label range it must have.
        labelled: whether the label column must be there (or must not).
        on_bad_row: error stops at the first malformed row; drop lists it and goes on.
        origin: what errors name and advise; by default the file itself, to be mended by hand.

    Yields:
        Rows in file order, and those left out among them; either may be empty.

    Raises:
        MtbertError: at a malformed row under `error`; and always for what is missing, no plain file, empty, not UTF-8, starts
            with a byte order mark or has another header.
    """
    given, origin = 0, origin or users_own(str(path))
    try:
        for block in _blocks(Lines(path, origin), task, labelled, on_bad_row, None):
            yield block
            given += 1
    except _PerhapsTwice:
        yield from islice(_blocks(Lines(path, origin), task, labelled, on_bad_row, {}), given, None)


def read_split(
    path: Path, task: Task, labelled: bool, on_bad_row: Literal["error", "drop"]
) -> tuple[list[Example], list[BadRow]]:
    """All that `read_blocks` yields, as one list of examples and one of the rows left out."""
    examples: list[Example] = []
    bad: list[BadRow] = []
    for rows, left_out in read_blocks(path, task, labelled, on_bad_row):
        examples += rows.examples()
        bad += left_out
    return examples, bad


def has_labels(path: Path, task: Task, origin: Origin | None = None) -> bool:
    """Whether the file's header ends in the task's label column.

    Raises:
        MtbertError: as `read_blocks`, for a header that is neither.
    """
    lines = Lines(path, origin or users_own(str(path)))
    labelled = _names_label(lines, task)
    _header(lines, task, labelled)
    return labelled


def place_of(path: Path, task: Task, line: int, sentence: int) -> tuple[int, int]:
    """Line and column at which sentence 1 or 2 of the (well-formed) row that starts on `line` begins."""
    lines = Lines(path, users_own(str(path)))
    header, index_columns = _header(lines, task, _names_label(lines, task))
    lines.skip_to(line - 1)
    return _split_row(lines, line, len(header.fields)).place(index_columns + sentence)


MOST_PIECES = 50  # lines over which the rest of a cut row is looked for


class _PerhapsTwice(Exception):
    """An id has the hash of an earlier one."""


def _blocks(
    lines: Lines,
    task: Task,
    labelled: bool,
    on_bad_row: Literal["error", "drop"],
    first_lines: dict[str, int] | None,
) -> Iterator[tuple[Block, list[BadRow]]]:
    """`first_lines` is where each id stood; without it, ids of earlier blocks are known by hash, and may raise `_PerhapsTwice`."""
    header, index_columns = _header(lines, task, labelled)
    layout = _Layout(header.fields, index_columns, task, labelled)
    met, line, some = Met(), header.next_line, False
    while line <= len(lines):
        lines.skip_to(line - 1)
        known: dict[str, int] = {} if first_lines is None else first_lines
        block = _by_column(lines, line, layout, known) or _by_row(lines, line, layout, known)
        if first_lines is None and met.perhaps(block.ids):
            raise _PerhapsTwice
        if block.bad and on_bad_row == "error":
            raise MtbertError(str(block.bad[0]))
        yield block.rows, block.bad
        some, line = True, block.next_line
    if not some:
        name, remedy = lines.origin.name, lines.origin.mend_file
        raise MtbertError(f"{name}:{header.next_line}:1: no row after the header; {remedy}")


class _Layout(NamedTuple):
    header: list[str]
    index_columns: int
    task: Task
    labelled: bool


class _Read(NamedTuple):
    rows: Block
    bad: list[BadRow]
    ids: Sequence[str]  # of bad rows too
    next_line: int


def _by_column(lines: Lines, line: int, layout: _Layout, first_lines: dict[str, int]) -> _Read | None:
    """The rows from `line` on that start on a loaded line, checked a column at a time; None where one of them is at fault."""
    width, end = len(layout.header), lines.loaded
    rows: list[list[str]] = []
    starts: list[int] = []
    try:
        while line <= end:
            text = lines[line - 1]
            if '"' in text or "\0" in text or "\r" in text:
                fields, _, _, after = _split_row(lines, line, width)
            else:
                fields, after = text.split("\t"), line + 1
            if len(fields) != width:
                return None
            rows.append(fields)
            starts.append(line)
            line = after
        columns = list(zip(*rows, strict=True))[layout.index_columns :]
        labels = None
        if layout.labelled:
            # A row for each text that stands for a label.
            texts = {fields[-1]: _Row(fields, None, 0, 0) for fields in rows}
            values = {text: _label(row, layout.task, text, row.fields[-2]) for text, row in texts.items()}
            labels = [values[text] for text in columns[-1]]
    except _Fault:
        return None
    ids, *sides = columns[: 1 + len(layout.task.texts)]
    if not all(all(map(str.strip, column)) for column in (ids, *sides)):
        return None
    together = " ".join(ids)
    if not together.isprintable() or "," in together or together.count(" ") >= len(ids):
        return None
    if len(set(ids)) < len(ids) or not first_lines.keys().isdisjoint(ids):
        return None
    first_lines.update(zip(ids, starts, strict=True))
    return _Read(Block(ids, sides, labels, starts), [], ids, line)


def _by_row(lines: Lines, line: int, layout: _Layout, first_lines: dict[str, int]) -> _Read:
    """The same rows one by one, those at fault with their places."""
    header, index_columns, task, labelled = layout
    end = lines.loaded
    examples: list[Example] = []
    bad: list[BadRow] = []
    ids: list[str] = []
    labels: dict[str, float] = {}
    while line <= end:
        try:
            row = _split_row(lines, line, len(header))
            line = row.next_line
            _check_width(lines, row, header)
            ids.append(row.fields[index_columns])
            examples.append(_example(row, task, index_columns, labelled, first_lines, labels))
        except _Fault as fault:
            remedy = lines.origin.mend_file if fault.truncated else lines.origin.mend_row
            bad.append(BadRow(lines.origin.name, *fault.place, fault.what, remedy))
            line = fault.resume or line
    firsts, seconds, found, starts = ([example[n] for example in examples] for n in range(1, 5))
    sides = [firsts, seconds] if task.is_pair else [firsts]
    rows = Block([example.id for example in examples], sides, found if labelled else None, starts)  # type: ignore[arg-type]
    return _Read(rows, bad, ids, line)


def _split_row(lines: Lines, line: int, width: int) -> _Row:
    """Split the row that starts on `line` (1-based) into fields; it spans further lines if a quoted field does."""
    text = lines[line - 1]
    if not text:
        raise _Fault(line, 1, "empty line", line + 1)
    for character, name in (("\0", "NUL byte"), ("\r", "carriage return inside a row")):
        if character in text:
            raise _Fault(line, text.index(character) + 1, name, line + 1)
    if '"' not in text:
        return _Row(text.split("\t"), None, line, line + 1)
    fields: list[str] = []
    places: list[tuple[int, int]] = []
    here, start = line, 0
    while True:
        places.append((here, start + 1))
        if text.startswith('"', start):
            field, here, end = _quoted(lines, line, here, start, width)
            text = lines[here - 1]
        else:
            end = text.find("\t", start)
            end = len(text) if end < 0 else end
            field = text[start:end]
        fields.append(field)
        if end == len(text):
            return _Row(fields, places, line, here + 1)
        start = end + 1


def _quoted(lines: Lines, first: int, line: int, start: int, width: int) -> tuple[str, int, int]:
    """The quoted field at lines[line - 1][start]: its content, the line on which it ends, and where on it."""
    resume = _after_cut(lines, first, width)
    parts: list[str] = []
    here, begin = line, start + 1
    while True:
        text = lines[here - 1]
        for character, name in (("\0", "NUL byte"), ("\r", "carriage return inside a row")):
            if character in text:
                raise _Fault(here, text.index(character) + 1, name, resume)
        match = CLOSING_QUOTE.match(text, begin)
        end = match.end() if match else len(text)
        if here > line and "\t" in text[:end]:
            # No sentence of these files holds a tab on its second line: this is the next row, not this one's text.
            what = f"unbalanced quote: the quoted field that starts here runs on into the row on line {here}"
            raise _Fault(line, start + 1, f"{what} (a row cut by an embedded newline)", resume)
        if match:
            parts.append(text[begin : end - 1])
            if end < len(text) and text[end] != "\t":
                raise _Fault(
                    here,
                    end + 1,
                    'unbalanced quote: text after a closing quote (a quote inside is doubled: "")',
                    resume,
                )
            return "\n".join(parts).replace('""', '"'), here, end
        parts.append(text[begin:])
        if here == len(lines):
            what = "unbalanced quote: the quoted field that starts here never ends"
            raise _Fault(line, start + 1, f"{what} (a row cut by an embedded newline, or a truncated file)", resume)
        here, begin = here + 1, 0


def _after_cut(lines: Lines, line: int, width: int) -> int:
    """The line after the pieces that an embedded newline cut off the row on `line`; line + 1 where none complete it."""
    tabs = lines[line - 1].count("\t")
    for piece in range(line + 1, min(line + MOST_PIECES, len(lines)) + 1):
        more = lines[piece - 1].count("\t")
        tabs += more
        if tabs >= width - 1:
            return piece + 1 if tabs == width - 1 and 0 < more < tabs else line + 1
    return line + 1


def _names_label(lines: Lines, task: Task) -> bool:
    return task.label in lines[0].replace('"', "").split("\t")


def _header(lines: Lines, task: Task, labelled: bool) -> tuple[_Row, int]:
    """The header's row and its number of index columns."""
    expected = ["id", *task.texts, *([task.label] if labelled else [])]
    layout = "a tab-separated header: an unnamed index column, " + ", ".join(expected)

    def fault(column: int, what: str) -> MtbertError:
        return MtbertError(f"{lines.origin.name}:1:{column}: {what}; this file must start with {layout}")

    if "\t" not in lines[0]:
        other = next(
            (name for mark, name in ((",", "commas"), (";", "semicolons"), ("|", "bars")) if mark in lines[0]), None
        )
        raise fault(1, f"columns separated by {other} rather than tabs" if other else "no header")
    try:
        row = _split_row(lines, 1, len(expected) + 1)
    except _Fault as error:
        raise fault(error.place[1], f"header: {error.what}") from None
    names = row.fields
    index_columns = next((n for n, name in enumerate(names) if not INDEX_NAME.fullmatch(name)), len(names))
    if names[index_columns:] == expected and 1 <= index_columns <= 2:
        return row, index_columns
    if not set(names) & set(expected):
        raise fault(1, "no header")
    if index_columns == 0:
        raise fault(1, "header: no index column")
    if index_columns > 2:
        raise fault(row.place(2)[1], f"header: {index_columns} unnamed columns")
    for n, name in enumerate(names[index_columns:]):
        column = row.place(index_columns + n)[1]
        if name not in expected:
            hint = "; an unlabelled file has no label" if name == task.label else ""
            raise fault(column, f"header: unknown column {name!r}{hint}")
        if name in names[index_columns : index_columns + n]:
            raise fault(column, f"header: column {name!r} stands twice")
        if n < len(expected) and name != expected[n] and set(expected) <= set(names):
            raise fault(column, f"header: column {name!r} where {expected[n]!r} belongs")
    missing = [name for name in expected if name not in names]
    raise fault(len(lines[0]) + 1, f"header: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _check_width(lines: Lines, row: _Row, header: list[str]) -> None:
    found, width = len(row.fields), len(header)
    if found == width:
        return
    last = row.next_line - 1
    if found > width:
        raise _Fault(*row.place(width), f"{found} columns where the header has {width}", row.next_line)
    end = len(lines[last - 1]) + 1
    missing = f"missing column{'s' * (width - found > 1)} {', '.join(header[found:])}"
    if last == len(lines):
        raise _Fault(last, end, f"{missing}: the file ends inside this row", row.next_line, truncated=True)
    after = _after_cut(lines, last, width - found + 1 + lines[last - 1].count("\t"))
    if after > row.next_line:
        what = f"row cut by an embedded newline: {missing} stand{'s' * (width - found == 1)} on line {after - 1}"
        raise _Fault(last, end, what, after)
    raise _Fault(last, end, missing, row.next_line)


def _example(
    row: _Row, task: Task, index_columns: int, labelled: bool, first_lines: dict[str, int], labels: dict[str, float]
) -> Example:
    """Check the fields from left to right; `labels` remembers parsed labels, `first_lines` where each id stood."""
    name, *rest = row.fields[index_columns:]
    if not name.strip():
        raise _Fault(*row.place(index_columns), "empty id")
    # Else `id , prediction` in the leaderboard's files would not be one line of two cells.
    wrong = next((character for character in name if character in " ," or not character.isprintable()), None)
    if wrong:
        raise _Fault(*row.place(index_columns), f"id with {wrong!r} in it (an id is one printable word without commas)")
    if name in first_lines:
        what = f"id {name!r} stands on line {first_lines[name]} already"
        raise _Fault(*row.place(index_columns), what)
    sentences = rest[: len(task.texts)]
    for n, sentence in enumerate(sentences):
        if not sentence.strip():
            raise _Fault(*row.place(index_columns + 1 + n), f"empty {task.texts[n]}")
    label = None
    if labelled:
        label = labels.get(rest[-1])
        if label is None:
            label = labels[rest[-1]] = _label(row, task, rest[-1], sentences[-1])
    first_lines[name] = row.line
    return Example(name, sentences[0], sentences[1] if task.is_pair else None, label, row.line)


def _label(row: _Row, task: Task, text: str, last_sentence: str) -> float:
    place = row.place(len(row.fields) - 1)
    valid = f"{task.low:g} to {task.high:g}" + ("" if task.kind == "regression" else ", whole numbers")
    if not text.strip():
        cut = last_sentence.count('"') % 2 == 1
        why = f" (unbalanced quote in {task.texts[-1]}: the row is cut by an embedded newline)" if cut else ""
        raise _Fault(*place, f"missing {task.label}{why}")
    if not NUMBER.fullmatch(text):
        raise _Fault(*place, f"{task.label} {text!r} is not a number (valid: {valid})")
    value = float(text)
    if not (math.isfinite(value) and task.low <= value <= task.high):
        raise _Fault(*place, f"{task.label} {text} is out of range (valid: {valid})")
    if task.kind != "regression" and not value.is_integer():
        raise _Fault(*place, f"{task.label} {text} is not a whole number (valid: {valid})")
    return value + 0.0
