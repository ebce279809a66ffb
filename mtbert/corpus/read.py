"""A strict reader of raw files: every malformed row is reported with its file, line and column.

The format: UTF-8 with a header (`mtbert.corpus.header`) and CSV quoting (`mtbert.corpus.split`). An id is one printable word without
commas. Columns count characters from 1; lines count newline characters, as editors do.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from mtbert.corpus.hashes import SeenHashes
from mtbert.corpus.header import Layout, read_header
from mtbert.corpus.lines import Lines
from mtbert.corpus.origins import Origin, users_own
from mtbert.corpus.rows import BadRow, Example, RowBlock
from mtbert.corpus.split import Fault, Row, after_cut, split_row
from mtbert.errors import MtbertError
from mtbert.tasks.task import Task

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_blocks(
    path: Path,
    task: Task,
    labelled: bool,
    on_bad_row: Literal["error", "drop"],
    origin: Origin | None = None,
) -> Iterator[tuple[RowBlock, list[BadRow]]]:
    """Read one raw file in blocks of about a thousand rows.

    Only the hash of each id is kept in memory. If two hashes are equal, the file is read again from its start with the
    ids themselves in memory.

    Args:
        path: the file.
        task: its columns and labels are checked.
        labelled: whether the file has a label column.
        on_bad_row: error stops at the first malformed row; drop lists it and goes on.
        origin: the file and the remedies that errors name; by default this file, to be corrected by hand.

    Yields:
        A block's well-formed rows and its malformed ones, both in file order; either may be empty.

    Raises:
        MtbertError: a row is malformed, under `error`; or the file is missing, not a regular file, empty or not UTF-8, starts
            with a byte order mark, or has a wrong header.
    """
    yielded, origin = 0, origin or users_own(str(path))
    try:
        for block in _blocks(Lines(path, origin), task, labelled, on_bad_row, None):
            yield block
            yielded += 1
    except _SameHash:
        yield from islice(_blocks(Lines(path, origin), task, labelled, on_bad_row, {}), yielded, None)


def has_labels(path: Path, task: Task, origin: Origin | None = None) -> bool:
    """Whether the file's header has the task's label column.

    Raises:
        MtbertError: as `read_blocks`, if the header is neither that of a labelled nor that of an unlabelled file.
    """
    return read_header(Lines(path, origin or users_own(str(path))), task, None).label is not None


def place_of(path: Path, task: Task, line: int, sentence: int) -> tuple[int, int]:
    """Line and column of sentence 1 or 2 of the well-formed row that starts on `line`."""
    lines = Lines(path, users_own(str(path)))
    layout = read_header(lines, task, None)
    lines.skip_to(line - 1)
    return split_row(lines, line, len(layout.names)).place(layout.texts[sentence - 1])


class _SameHash(Exception):
    """An id has the same hash as an earlier one, and may be equal to it."""


def _blocks(
    lines: Lines,
    task: Task,
    labelled: bool,
    on_bad_row: Literal["error", "drop"],
    first_lines: dict[str, int] | None,
) -> Iterator[tuple[RowBlock, list[BadRow]]]:
    """`first_lines` collects the line of each id. If it is None, ids are compared with earlier blocks by hash.

    Raises:
        _SameHash: two hashes are equal.
    """
    layout = read_header(lines, task, labelled)
    seen, line, is_empty = SeenHashes(), layout.next_line, True
    while line <= len(lines):
        lines.skip_to(line - 1)
        known: dict[str, int] = {} if first_lines is None else first_lines
        block = _by_column(lines, line, layout, known) or _by_row(lines, line, layout, known)
        if first_lines is None and seen.may_have(block.ids):
            raise _SameHash
        if block.bad and on_bad_row == "error":
            raise MtbertError(str(block.bad[0]))
        yield block.rows, block.bad
        is_empty, line = False, block.next_line
    if is_empty:
        name, remedy = lines.origin.name, lines.origin.fix_file
        raise MtbertError(f"{name}:{layout.next_line}:1: no row after the header; {remedy}")


class _Read(NamedTuple):
    rows: RowBlock
    bad: list[BadRow]
    ids: Sequence[str]  # including those of bad rows
    next_line: int


def _by_column(lines: Lines, line: int, layout: Layout, first_lines: dict[str, int]) -> _Read | None:
    """Check the loaded rows from `line` on a column at a time; None if one is malformed."""
    width, end = len(layout.names), lines.loaded
    rows: list[list[str]] = []
    starts: list[int] = []
    try:
        while line <= end:
            text = lines[line - 1]
            if '"' in text or "\0" in text or "\r" in text:
                fields, _, _, after = split_row(lines, line, width)
            else:
                fields, after = text.split(lines.delimiter), line + 1
            if len(fields) != width:
                return None
            rows.append(fields)
            starts.append(line)
            line = after
        columns = list(zip(*rows, strict=True))
        sides = [columns[n] for n in layout.texts]
        labels = None
        if layout.label is not None:
            # Each distinct label text is parsed once, with one of its rows.
            texts = {fields[layout.label]: Row(fields, None, 0, 0) for fields in rows}
            values = {text: _label(row, layout, text, row.fields[layout.texts[-1]]) for text, row in texts.items()}
            labels = [values[text] for text in columns[layout.label]]
    except Fault:
        return None
    ids = list(map(str, starts)) if layout.id is None else columns[layout.id]
    if not all(all(map(str.strip, column)) for column in (ids, *sides)):
        return None
    together = " ".join(ids)
    if not together.isprintable() or "," in together or together.count(" ") >= len(ids):
        return None
    if len(set(ids)) < len(ids) or not first_lines.keys().isdisjoint(ids):
        return None
    first_lines.update(zip(ids, starts, strict=True))
    return _Read(RowBlock(ids, sides, labels, starts), [], ids, line)


def _by_row(lines: Lines, line: int, layout: Layout, first_lines: dict[str, int]) -> _Read:
    """Check the same rows one by one, and locate the malformed ones."""
    end = lines.loaded
    examples: list[Example] = []
    bad: list[BadRow] = []
    ids: list[str] = []
    labels: dict[str, float] = {}
    while line <= end:
        try:
            row = split_row(lines, line, len(layout.names))
            line = row.next_line
            _check_width(lines, row, layout.names)
            ids.append(_id(row, layout))
            examples.append(_example(row, layout, first_lines, labels))
        except Fault as fault:
            remedy = lines.origin.fix_file if fault.truncated else lines.origin.fix_row
            bad.append(BadRow(lines.origin.name, *fault.place, fault.what, remedy))
            line = fault.resume or line
    firsts, seconds, labels_read, starts = ([example[n] for example in examples] for n in range(1, 5))
    sides = [firsts, seconds] if layout.task.is_pair else [firsts]
    labelled = None if layout.label is None else labels_read
    rows = RowBlock([example.id for example in examples], sides, labelled, starts)  # type: ignore[arg-type]
    return _Read(rows, bad, ids, line)


def _check_width(lines: Lines, row: Row, header: list[str]) -> None:
    found, width = len(row.fields), len(header)
    if found == width:
        return
    last = row.next_line - 1
    if found > width:
        raise Fault(*row.place(width), f"{found} columns where the header has {width}", row.next_line)
    end = len(lines[last - 1]) + 1
    missing = f"missing column{'s' * (width - found > 1)} {', '.join(header[found:])}"
    if last == len(lines):
        raise Fault(last, end, f"{missing}: the file ends inside this row", row.next_line, truncated=True)
    after = after_cut(lines, last, width - found + 1 + lines[last - 1].count("\t"))
    if after > row.next_line:
        what = f"row cut by an embedded newline: {missing} {'is' if width - found == 1 else 'are'} on line {after - 1}"
        raise Fault(last, end, what, after)
    raise Fault(last, end, missing, row.next_line)


def _id(row: Row, layout: Layout) -> str:
    return str(row.line) if layout.id is None else row.fields[layout.id]


def _example(row: Row, layout: Layout, first_lines: dict[str, int], labels: dict[str, float]) -> Example:
    """Check id, sentences and label in this order; `labels` caches parsed labels, `first_lines` the line of each id."""
    name, task = _id(row, layout), layout.task
    if layout.id is not None:
        _check_id(name, row.place(layout.id), first_lines)
    sentences = [row.fields[n] for n in layout.texts]
    for n, sentence in enumerate(sentences):
        if not sentence.strip():
            raise Fault(*row.place(layout.texts[n]), f"empty {task.texts[n]}")
    label = None
    if layout.label is not None:
        text = row.fields[layout.label]
        label = labels.get(text)
        if label is None:
            label = labels[text] = _label(row, layout, text, sentences[-1])
    first_lines[name] = row.line
    return Example(name, sentences[0], sentences[1] if task.is_pair else None, label, row.line)


def _check_id(name: str, place: tuple[int, int], first_lines: dict[str, int]) -> None:
    if not name.strip():
        raise Fault(*place, "empty id")
    # A line `id , prediction` of the leaderboard's files must have two cells.
    wrong = next((character for character in name if character in " ," or not character.isprintable()), None)
    if wrong:
        raise Fault(*place, f"id with {wrong!r} in it (an id is one printable word without commas)")
    if name in first_lines:
        raise Fault(*place, f"id {name!r} is already on line {first_lines[name]}")


def _label(row: Row, layout: Layout, text: str, last_sentence: str) -> float:
    task = layout.task
    assert layout.label is not None
    place = row.place(layout.label)
    if not text.strip():
        cut = last_sentence.count('"') % 2 == 1
        why = f" (unbalanced quote in {task.texts[-1]}: the row is cut by an embedded newline)" if cut else ""
        raise Fault(*place, f"missing {task.label}{why}")
    if task.classes:
        if text not in task.classes:
            raise Fault(*place, f"{task.label} {text!r} is no class of {task.name} (valid: {', '.join(task.classes)})")
        return float(task.classes.index(text))
    valid = f"{task.low:g} to {task.high:g}" + ("" if task.kind == "score" else ", whole numbers")
    if not NUMBER.fullmatch(text):
        raise Fault(*place, f"{task.label} {text!r} is not a number (valid: {valid})")
    value = float(text)
    if not (math.isfinite(value) and task.low <= value <= task.high):
        raise Fault(*place, f"{task.label} {text} is out of range (valid: {valid})")
    if task.kind != "score" and not value.is_integer():
        raise Fault(*place, f"{task.label} {text} is not a whole number (valid: {valid})")
    return value + 0.0
