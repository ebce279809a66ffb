"""Splits a row of a raw file into fields with their places, and finds the rest of a row cut by a newline.

Default CSV quoting: a field that starts with `"` ends at the next single `"`; `""` inside it is an escaped quote. A quoted
sentence may contain newlines. The csv module is not used, since it reads past an unbalanced quote into later rows and does not
give the places of fields.
"""

import re
from typing import NamedTuple

from mtbert.corpus.lines import Lines

CLOSING_QUOTE = re.compile(r'(?:[^"]|"")*"(?!")')
MOST_PIECES = 50  # lines to search for the rest of a cut row


class Fault(Exception):
    """A malformed row; `resume` is the line of the next row."""

    def __init__(
        self, line: int, column: int, what: str, resume: int | None = None, *, truncated: bool = False
    ) -> None:
        super().__init__(what)
        self.place, self.what, self.resume, self.truncated = (line, column), what, resume, truncated


class Row(NamedTuple):
    """One row; `places` holds line and column of each field, or is None if no field is quoted."""

    fields: list[str]
    places: list[tuple[int, int]] | None
    line: int
    next_line: int

    def place(self, field: int) -> tuple[int, int]:
        """Line and column of the start of a field."""
        if self.places is not None:
            return self.places[field]
        return self.line, 1 + sum(len(text) + 1 for text in self.fields[:field])


def split_row(lines: Lines, line: int, width: int) -> Row:
    """Split the row that starts on `line` (1-based) into fields; a quoted field may continue on further lines."""
    text = _text(lines, line, line + 1)
    if not text:
        raise Fault(line, 1, "empty line", line + 1)
    if '"' not in text:
        return Row(text.split(lines.delimiter), None, line, line + 1)
    fields: list[str] = []
    places: list[tuple[int, int]] = []
    here, start = line, 0
    while True:
        places.append((here, start + 1))
        if text.startswith('"', start):
            field, here, end = _quoted(lines, line, here, start, width)
            text = lines[here - 1]
        else:
            end = text.find(lines.delimiter, start)
            end = len(text) if end < 0 else end
            field = text[start:end]
        fields.append(field)
        if end == len(text):
            return Row(fields, places, line, here + 1)
        start = end + 1


def _text(lines: Lines, line: int, resume: int) -> str:
    """The text of a line, if it has only characters that a row may have."""
    text = lines[line - 1]
    for character, name in (("\0", "NUL byte"), ("\r", "carriage return inside a row")):
        if character in text:
            raise Fault(line, text.index(character) + 1, name, resume)
    return text


def _quoted(lines: Lines, first: int, line: int, start: int, width: int) -> tuple[str, int, int]:
    """The quoted field at lines[line - 1][start]: its content, and the line and index at which it ends."""
    resume = after_cut(lines, first, width)
    parts: list[str] = []
    here, begin = line, start + 1
    while True:
        text = _text(lines, here, resume)
        match = CLOSING_QUOTE.match(text, begin)
        end = match.end() if match else len(text)
        if lines.delimiter == "\t" and here > line and "\t" in text[:end]:
            # Sentences contain no tabs, so this line belongs to the next row.
            what = f"unbalanced quote: the quoted field that starts here runs on into the row on line {here}"
            raise Fault(line, start + 1, f"{what} (a row cut by an embedded newline)", resume)
        if match:
            parts.append(text[begin : end - 1])
            if end < len(text) and text[end] != lines.delimiter:
                raise Fault(
                    here,
                    end + 1,
                    'unbalanced quote: text after a closing quote (a quote inside is doubled: "")',
                    resume,
                )
            return "\n".join(parts).replace('""', '"'), here, end
        parts.append(text[begin:])
        if here == len(lines):
            what = "unbalanced quote: the quoted field that starts here never ends"
            raise Fault(line, start + 1, f"{what} (a row cut by an embedded newline, or a truncated file)", resume)
        here, begin = here + 1, 0


def after_cut(lines: Lines, line: int, width: int) -> int:
    """The line after the rest of a row that starts on `line` and was cut by newlines; `line` + 1 if no rest is found.

    Only tabs are counted: sentences contain commas, so a comma-separated row cannot be put together again.
    """
    if lines.delimiter != "\t":
        return line + 1
    tabs = lines[line - 1].count("\t")
    for piece in range(line + 1, min(line + MOST_PIECES, len(lines)) + 1):
        more = lines[piece - 1].count("\t")
        tabs += more
        if tabs >= width - 1:
            return piece + 1 if tabs == width - 1 and 0 < more < tabs else line + 1
    return line + 1
