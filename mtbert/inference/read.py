"""Rows to predict: from arguments, from a file or from standard input, one at a time, each with its line."""

import csv
import importlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from mtbert.errors import MtbertError, nearest, short
from mtbert.inference.model import Sides, TaskInfo, names_of
from mtbert.tabular import LONGEST_CELL

Form = Literal["lines", "tsv", "csv", "jsonl", "parquet"]
FORMS: dict[str, Form] = {
    ".txt": "lines",
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
LONGEST = 1 << 24  # bytes of a line
TEXT_TYPE = re.compile(r"(dictionary<values=)?(string|large_string|string_view|null)\b")  # as pyarrow prints it


class Row(NamedTuple):
    """An example, and the line (in Parquet the row, among arguments the argument) on which it starts, from 1."""

    line: int
    sides: Sides


class Bad(NamedTuple):
    """A row that cannot be read, and why."""

    line: int
    what: str


class Source(NamedTuple):
    """Where rows come from.

    Attributes:
        name: as messages call it.
        rows: in their order, bad ones among them.
        size: of the file in bytes (of Parquet in rows), where it is known.
        position: how much of it was read, where its size is known.
    """

    name: str
    rows: Iterator[Row | Bad]
    size: int | None = None
    position: Callable[[], int] = lambda: 0

    def place(self, line: int) -> str:
        return f"{self.name}{' ' if self.name == 'argument' else ':'}{line}"


def from_arguments(texts: Sequence[str], task: TaskInfo) -> Source:
    """Rows that were typed: a text for each sentence."""
    if len(texts) % task.sentences:
        raise MtbertError(
            f"{task.name} takes pairs of sentences, and the number of texts, {len(texts)}, is odd; give two per pair"
        )
    starts = range(0, len(texts), task.sentences)
    rows = (Row(start + 1, tuple(texts[start : start + task.sentences])) for start in starts)
    return Source("argument", rows)


def from_file(file: BinaryIO, name: str, form: Form | None, task: TaskInfo, columns: Sequence[str] | None) -> Source:
    """Rows of an open file.

    Args:
        name: for messages.
        form: if None, by the suffix of `name`; for another suffix, plain lines, or TSV for pairs.
        columns: the names of the sentence columns; by default those of the task's training files, or sentence, or sentence1 and
            sentence2.

    Raises:
        MtbertError: a column is missing, or the file cannot be read in this form. Some are raised while rows are read.
    """
    form = form or FORMS.get(Path(name).suffix.lower(), "lines" if task.sentences == 1 else "tsv")
    if form == "lines" and task.sentences == 2:
        raise MtbertError(
            f"{name}: {task.name} needs two sentences a row, and plain lines have one; use TSV, CSV or JSONL"
        )
    if columns is not None and len(columns) != task.sentences:
        raise MtbertError(f"--columns names {len(columns)} columns, but {task.name} reads {task.sentences}")
    if columns is not None and form == "lines":
        raise MtbertError(
            f"{name}: plain lines have no columns; leave --columns out, or give the file's form with --input-format"
        )
    wanted = _Columns(name, [tuple(columns)] if columns else [task.columns, names_of(task.sentences)], bool(columns))
    if form == "parquet":
        return _parquet(file, name, wanted)
    lines = _Lines(file, name)
    rows = {"lines": _plain, "tsv": _tsv, "csv": _csv, "jsonl": _jsonl}[form](lines, wanted)
    return Source(name, rows, _size(file), lambda: lines.read)


class _Columns:
    """Which columns of a table are the sentences.

    Args:
        name: the file's.
        candidates: sets of names, of which the first that is there is taken.
        named: whether the user named them.
    """

    def __init__(self, name: str, candidates: Sequence[Sides], named: bool) -> None:
        self.name, self.candidates, self.named = name, candidates, named
        self.count = len(candidates[0])

    def found(self, header: Sequence[str]) -> Sides | None:
        return next((names for names in self.candidates if set(names) <= set(header)), None)

    def places(self, header: Sequence[str]) -> list[int]:
        """Their indices in a header."""
        names = self.found(header)
        if names is None:
            if len(header) == 1 and ";" in header[0]:  # as spreadsheets write CSV where the comma is the decimal sign
                raise MtbertError(
                    f"{self.name}:1: semicolons separate the columns; separate them by commas or tabs, and quote fields that hold them"
                )
            if any("\udc80" <= character <= "\udcff" for character in "".join(header)):
                raise MtbertError(f"{self.name}:1: the header is not UTF-8; save the file as UTF-8")
            missing = next(name for name in self.candidates[0] if name not in header)
            raise MtbertError(
                f"{self.name}:1: no column {missing!r} in the header{nearest(missing, header)}; name the columns with --columns"
            )
        if twice := next((name for name in names if header.count(name) > 1), None):
            raise MtbertError(f"{self.name}:1: column {twice!r} appears twice in the header; rename one of the two")
        return [header.index(name) for name in names]


class _Lines:
    """A file's lines with their ends; bytes that are not UTF-8 become lone surrogates, which `fault` finds.

    Attributes:
        number: of the last line that was read.
        read: bytes so far.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name, self.number, self.read = file, name, 0, 0

    def __iter__(self) -> Iterator[str]:
        while line := self._line():
            self.number += 1
            self.read += len(line)
            if len(line) > LONGEST:
                raise MtbertError(
                    f"{self.name}:{self.number}: a line of more than {LONGEST >> 20} MiB; is this a text file?"
                )
            text = line.decode("utf-8", "surrogateescape")
            yield text.removeprefix("\ufeff") if self.number == 1 else text

    def _line(self) -> bytes:
        try:
            return self._file.readline(LONGEST + 1)
        except OSError as error:
            raise MtbertError(f"{self.name}:{self.number + 1}: cannot be read ({error.strerror})") from None


def _plain(lines: _Lines, wanted: _Columns) -> Iterator[Row | Bad]:
    return (Row(lines.number, (_text(line),)) for line in lines)


def _tsv(lines: _Lines, wanted: _Columns) -> Iterator[Row | Bad]:
    """Tabs between fields, no quoting. The first line is a header if it names the columns, and must be if the user named them."""
    width, places = wanted.count, list(range(wanted.count))
    for line in lines:
        fields = _text(line).split("\t")
        if lines.number == 1 and (wanted.named or wanted.found(fields)):
            width, places = len(fields), wanted.places(fields)
        elif len(fields) != width:
            yield Bad(lines.number, f"{len(fields)} fields between tabs, where {width} are expected")
        else:
            yield Row(lines.number, tuple(fields[place] for place in places))


def _csv(lines: _Lines, wanted: _Columns) -> Iterator[Row | Bad]:
    """A header, and CSV quoting; separated by tabs where the header has some, else by commas."""
    source = iter(lines)
    if not (first := next(source, "")).strip():
        raise MtbertError(f"{lines.name}:1: no header; CSV starts with the names of its columns")
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(chain([first], source), delimiter="\t" if "\t" in first else ",", strict=True)
    try:
        header = next(reader)
    except csv.Error as error:
        raise MtbertError(f"{lines.name}:1: the header is not CSV ({error}); correct it") from None
    places = wanted.places(header)
    while True:
        line = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Bad(line, f"not CSV ({error})")
            continue
        if len(fields) == len(header):
            yield Row(line, tuple(fields[place] for place in places))
        else:
            yield Bad(line, f"{len(fields)} fields, where the header has {len(header)}" if fields else "empty line")


def _jsonl(lines: _Lines, wanted: _Columns) -> Iterator[Row | Bad]:
    """A JSON value a line: an object with the columns, a list of the sentences, or a single sentence."""
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Bad(lines.number, "empty line" if not line.strip() else f"not JSON ({error})")
            continue
        if isinstance(value, dict):
            if (names := wanted.found(list(value))) is None:
                missing = next(name for name in wanted.candidates[0] if name not in value)
                yield Bad(lines.number, f"no key {missing!r}")
                continue
            value = [value[name] for name in names]
        sides = value if isinstance(value, list) else [value]
        if len(sides) != wanted.count or not all(isinstance(side, str) for side in sides):
            yield Bad(lines.number, f"{short(value)} is not {'a text' if wanted.count == 1 else 'two texts'}")
        else:
            yield Row(lines.number, tuple(sides))


def _parquet(file: BinaryIO, name: str, wanted: _Columns) -> Source:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MtbertError(
            f"{name}: reading Parquet needs pyarrow; install it (pip install 'mtbert[parquet]'), or write CSV"
        ) from None
    if not file.seekable():
        raise MtbertError(f"{name}: Parquet cannot be read from a pipe; write it to a file and name that with --input")
    try:
        table: Any = parquet.ParquetFile(file)
    except Exception as error:  # pyarrow's own classes
        remedy = "write it again, or name its form with --input-format"
        raise MtbertError(f"{name}: not Parquet ({str(error).rstrip('.')}); {remedy}") from None
    header = list(table.schema_arrow.names)
    places = wanted.places(header)
    columns = [header[place] for place in places]
    for place in places:
        kind = table.schema_arrow.field(place).type
        if not TEXT_TYPE.match(str(kind)):
            raise MtbertError(f"{name}: column {header[place]!r} holds {kind}, not text; write it as strings")
    done = 0

    def rows() -> Iterator[Row | Bad]:
        nonlocal done
        try:
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for sides in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                    done += 1
                    if None in sides:
                        yield Bad(done, f"{columns[sides.index(None)]} is null")
                    else:
                        yield Row(done, sides)
        except (UnicodeDecodeError, OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            what = str(error).rstrip(".")
            raise MtbertError(
                f"{name}: from row {done + 1} on, it cannot be read ({what}); write the file again"
            ) from None

    return Source(name, rows(), table.metadata.num_rows, lambda: done)


def _size(file: BinaryIO) -> int | None:
    if not file.seekable():
        return None
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    return size - here


def _text(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
