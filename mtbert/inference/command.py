"""`mtbert predict`: rows in, predictions out, in bounded memory."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mtbert.errors import MtbertError, Stopped, nearest, out_of_memory
from mtbert.files import replaced_file
from mtbert.inference.load import load
from mtbert.inference.model import NO_WORDPIECE, TaskInfo, TrainedModel, chunks, cut_message, fault, names_of
from mtbert.inference.read import Bad, Form, Row, Source, from_arguments, from_file
from mtbert.inference.write import Csv, Format, Jsonl, OnTerminal, Predicted, Writer

LISTED = 5  # rows left out that are named
STDIN = "standard input"
SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FIX = "correct the row, or leave such rows out with --on-bad-row skip"


def main(
    model: str,
    task: str,
    texts: Sequence[str],
    *,
    input_file: str | None = None,
    output_file: str | None = None,
    output_format: str | None = None,
    input_format: str | None = None,
    columns: str | None = None,
    on_bad_row: str = "error",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
) -> None:
    """Predict, and print or write the predictions; what was left out or cut is reported on stderr.

    Raises:
        MtbertError: an option, the model, the task or a row is wrong; names what, where and the remedy.
        Stopped: at an interrupt; an output file is then not written.
    """
    form = _choice("--input-format", input_format, get_args(Form))
    target = _target(output_file, _choice("--format", output_format, get_args(Format)))
    skip = _choice("--on-bad-row", on_bad_row, ("error", "skip")) == "skip"
    if texts and input_file is not None:
        raise MtbertError("TEXT and --input exclude each other; give one of them")
    if texts and (form or columns):
        raise MtbertError(f"{'--input-format' if form else '--columns'} is for files, not for TEXT; leave it out")
    if input_file == "-":
        input_file = None
    if not texts and input_file is None and sys.stdin.isatty():
        raise MtbertError("nothing to predict; give TEXT, --input FILE, or lines on standard input")
    done = 0
    try:
        with ExitStack() as stack:
            file = None if texts else stack.enter_context(_opened(input_file))
            loaded = load(model, device=device, precision=precision)
            about = loaded.task(task)
            wanted = tuple(column.strip() for column in columns.split(",")) if columns else None
            if file is None:
                source = from_arguments(texts, about)
            else:
                source = from_file(file, input_file or STDIN, form, about, wanted)
            writer = stack.enter_context(_writer(output_file, target, about))
            rows = _Rows(source, wanted or names_of(about.sentences), skip, loaded.max_tokens)
            with _progress(hidden=target == "table") as progress:
                bar = progress.add_task("", total=source.size, rows=0)
                for chunk in chunks(rows, lambda row: sum(map(len, row.sides))):
                    writer.write(_predicted(loaded, task, chunk, rows, batch_size))
                    done += len(chunk)
                    progress.update(bar, completed=source.position(), rows=done)
            rows.report()
    except KeyboardInterrupt:
        end = f"{output_file} was not written" if output_file else f"after {done} rows"
        raise Stopped(f"interrupted; {end}", signal.SIGINT) from None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MtbertError(f"out of memory ({error}); lower --batch-size, now {batch_size}, or free memory") from None


class _Rows:
    """The readable rows, and what was left out or cut.

    Args:
        names: what messages call the sentences.
        skip: leave bad rows out, rather than stop at the first.
        limit: the model's longest sequence.
    """

    def __init__(self, source: Source, names: Sequence[str], skip: bool, limit: int) -> None:
        self._source, self._names, self._skip, self._limit = source, names, skip, limit
        self._bad: list[str] = []
        self._bad_count = self._cut = self._first_cut = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._source.rows:
            if what := row.what if isinstance(row, Bad) else fault(row.sides, self._names):
                self.bad(row.line, what)
            elif isinstance(row, Row):
                yield row

    def bad(self, line: int, what: str) -> None:
        """Leave the row on this line out, or stop."""
        if not self._skip:
            raise MtbertError(f"{self._source.place(line)}: {what}; {FIX}")
        self._bad_count += 1
        if self._bad_count <= LISTED:
            self._bad.append(f"{self._source.place(line)}: {what}")

    def no_wordpiece(self, line: int, sentence: int) -> None:
        self.bad(line, f"{self._names[sentence - 1]} {NO_WORDPIECE}")

    def cut(self, lines: Sequence[int]) -> None:
        if lines and not self._cut:
            self._first_cut = lines[0]
        self._cut += len(lines)

    def report(self) -> None:
        """Say on stderr what was left out or cut."""
        if self._cut:
            first = self._source.place(self._first_cut)
            print(f"warning: {cut_message(self._cut, 'row', self._limit)}; the first: {first}", file=sys.stderr)
        if self._bad_count:
            print(f"warning: {self._bad_count} bad row{'s' * (self._bad_count > 1)} left out:", file=sys.stderr)
            for line in self._bad:
                print(f"  {line}", file=sys.stderr)
            if self._bad_count > LISTED:
                print(f"  and {self._bad_count - LISTED} more", file=sys.stderr)


def _progress(hidden: bool) -> Progress:
    """A progress bar on stderr, if that is a terminal."""
    columns = (TextColumn("{task.fields[rows]:,} rows"), BarColumn(), TimeRemainingColumn())
    disable = hidden or not sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), disable=disable, transient=True)


def _predicted(model: TrainedModel, task: str, chunk: Sequence[Row], rows: _Rows, batch_size: int) -> list[Predicted]:
    found = model.tokenize(task, [row.sides for row in chunk])
    for n in np.flatnonzero(found.empty).tolist():
        rows.no_wordpiece(chunk[n].line, int(found.empty[n]))
    kept = np.flatnonzero(found.empty == 0)
    rows.cut([chunk[n].line for n in kept.tolist() if found.cut[n]])
    predictions = model.score(task, found.split, kept, batch_size)
    return [Predicted(chunk[n], prediction) for n, prediction in zip(kept.tolist(), predictions, strict=True)]


def _choice(option: str, value: str | None, valid: Sequence[str]) -> Any:
    if value is not None and value not in valid:
        raise MtbertError(f"{option}: {value!r} is unknown{nearest(value, valid)}")
    return value


def _target(output: str | None, wanted: Format | None) -> Format:
    """How to write: as requested, else by the file's suffix, else a table on a terminal and CSV elsewhere."""
    if output is None:
        return wanted or ("table" if sys.stdout.isatty() else "csv")
    if wanted == "table":
        raise MtbertError("--format table is for terminals; write csv or jsonl to --output")
    found = wanted or SUFFIXES.get(Path(output).suffix.lower())
    if found is None:
        raise MtbertError(f"--output {output}: unknown format; let the name end in .csv or .jsonl, or add --format")
    if Path(output).exists() and not Path(output).is_file():
        raise MtbertError(f"--output {output}: is not a file; name a file, or redirect standard output")
    return found


def _opened(name: str | None) -> AbstractContextManager[BinaryIO]:
    """The file, or standard input if `name` is None."""
    if name is None:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise MtbertError(f"--input {name}: {what}; check its name and permissions") from None


@contextmanager
def _writer(output: str | None, target: Format, task: TaskInfo) -> Iterator[Writer]:
    if target == "table":
        yield OnTerminal(task)
    else:
        with nullcontext(sys.stdout.buffer) if output is None else replaced_file(Path(output).resolve()) as file:
            yield Csv(file, task) if target == "csv" else Jsonl(file, task)
