"""CSV files that people open in spreadsheets: a safe writer, and a reader that returns exactly what was written.

A spreadsheet runs a cell as a formula if it begins with = + - @ (or their full-width forms, or blanks before them), a tab or a line
end. The writer puts an apostrophe before such a cell, and before a cell that already looks escaped; the reader removes it.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtbert.files import atomic_write_text

LONGEST_CELL = 2**31 - 1  # the csv module's limit is 131,072 characters, unless it is told another one

Cell = str | int | float | None

EMPTY = '""'  # one empty cell: readers skip an empty line
# Control characters, zero-width characters and direction marks, for use inside a regular expression's brackets.
INVISIBLE = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
# Spreadsheets skip blanks before they look for a formula.
FORMULA = re.compile(rf"'*[\s{INVISIBLE}]*[\t\r\n=+\-@＝＋－＠]")
NUMBER = re.compile(r"[+-]?(?:[\d,]+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?", re.ASCII)


def harmless(cell: str) -> str:
    """The cell, with an apostrophe before it if a spreadsheet would run it as a formula; numbers are unchanged."""
    return f"'{cell}" if _risky(cell) else cell


def original(cell: str) -> str:
    """The inverse of `harmless`."""
    return cell[1:] if cell.startswith("'") and _risky(cell[1:]) else cell


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A header and rows as CSV (RFC 4180, lines end in \\n); None and NaN become empty cells."""
    lines = (",".join(_quoted(_text(cell)) for cell in row) for row in (header, *rows))
    return "".join(f"{line or EMPTY}\n" for line in lines)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write `csv_text` atomically, UTF-8 encoded."""
    atomic_write_text(path, csv_text(header, rows))


def read_csv(path: Path) -> dict[str, list[str]]:
    """The columns of a file that `write_csv` wrote, by name; every cell is the original text.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8, has no header, or a row has more or fewer cells than the header; names the row's line.
    """
    with path.open(encoding="utf-8", newline="") as file:
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(file)
        header = next(reader, None)
        if not header:
            raise ValueError("no header")
        columns: list[list[str]] = [[] for _ in header]
        try:
            for row in reader:
                for column, cell in zip(columns, row, strict=True):
                    column.append(original(cell))
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        except ValueError:
            raise ValueError(f"line {reader.line_num}: {len(row)} cells under {len(header)} names") from None
    return {original(name): column for name, column in zip(header, columns, strict=True)}


def _risky(cell: str) -> bool:
    return bool(FORMULA.match(cell)) and not NUMBER.fullmatch(cell)


def _text(cell: Cell) -> str:
    return "" if cell is None or cell != cell else str(cell)


def _quoted(cell: str) -> str:
    # Python 3.11's csv.writer does not quote a bare carriage return, and readers end the row there.
    cell = harmless(cell)
    return '"' + cell.replace('"', '""') + '"' if re.search('[",\r\n]', cell) else cell
