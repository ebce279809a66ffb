"""A table of text cells as CSV, Markdown and LaTeX; what a cell says never becomes markup or a formula."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # After the \\ that ends a row, a bare bracket or asterisk would be its argument.
    "[": "{[}",
    "*": "{*}",
    "−": r"$-$",
    "α": r"$\alpha$",
    "½": r"$\frac{1}{2}$",
    "–": "--",
}
LONG = 30
"""A text column whose cells are longer than this, in characters, is wrapped in LaTeX."""


class Table(NamedTuple):
    """A table as its readers see it.

    Attributes:
        caption: one sentence.
        header: a name per column, no two alike; columns `Paper: A`, `Paper: B` stand under one heading where that can be shown.
        rows: text cells; numbers are formatted already.
        notes: what a reader must know, a sentence each; `code` stands in backticks.
        numeric: which columns are numbers, to be set flush right.
    """

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str]
    numeric: tuple[bool, ...]

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """Columns in order, as (heading, names under it); a column of its own has the heading ''."""
        parts = [name.rpartition(": ") for name in self.header]
        return [(heading, [name for *_, name in found]) for heading, found in groupby(parts, key=lambda part: part[0])]


def to_csv(table: Table) -> str:
    """Comma-separated; a cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table with caption and notes."""
    rule = " | ".join("---:" if number else "---" for number in table.numeric)
    header, *rows = (" | ".join(_markdown(cell) for cell in row) for row in (table.header, *table.rows))
    body = "\n".join(f"| {line} |" for line in (header, rule, *rows))
    notes = "".join(f"\n{_prose(note, _markdown, lambda code: f'`{_one_line(code)}`')}\n" for note in table.notes)
    return f"**{_markdown(table.caption)}**\n\n{body}\n{notes}"


def to_latex(table: Table) -> str:
    """A booktabs table; columns of long text are wrapped and share 80 % of the line."""
    long = [not table.numeric[i] and any(len(row[i]) > LONG for row in table.rows) for i in range(len(table.header))]
    wrapped = f"p{{{0.8 / max(1, sum(long)):.2f}\\linewidth}}"
    columns = "".join(wrapped if long[i] else "r" if is_number else "l" for i, is_number in enumerate(table.numeric))
    rows = " \\\\\n".join(" & ".join(_latex(cell) for cell in row) for row in table.rows)
    prose = (_prose(note, _latex, lambda code: f"\\texttt{{{_latex(code)}}}") for note in table.notes)
    notes = "".join(f"\\par\\footnotesize {note}\n" for note in prose)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_latex(table.caption)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{_latex_header(table)} \\\\\n\\midrule\n{rows} \\\\\n\\bottomrule\n\\end{{tabular}}\n"
        f"{notes}\\end{{table}}\n"
    )


def visible(text: str) -> str:
    """Text on one line, without control characters and the marks that turn the direction of writing."""
    return _one_line(text).strip()


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits, with an en dash for what is not there."""
    return "–" if value is None else f"{value:.{digits}f}"


def bracketed(values: Sequence[float]) -> str:
    """Probabilities as the paper's Table 3 prints them."""
    return "[" + ", ".join(f"{value:.2f}" for value in values) + "]"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+", " ", text)


def _latex_header(table: Table) -> str:
    names = " & ".join(_latex(name) for _, group in table.groups for name in group)
    if not any(heading for heading, _ in table.groups):
        return names
    first, rules, column = [], "", 1
    for heading, group in table.groups:
        if heading:
            first.append(f"\\multicolumn{{{len(group)}}}{{c}}{{{_latex(heading)}}}")
            rules += f"\\cmidrule(lr){{{column}-{column + len(group) - 1}}}"
        else:
            first += [""] * len(group)
        column += len(group)
    return f"{' & '.join(first)} \\\\\n{rules}\n{names}"


def _prose(text: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """Running text, in which what stands between backticks is code."""
    parts = re.split(r"`([^`]*)`", text)
    return "".join(code(part) if index % 2 else plain(part) for index, part in enumerate(parts))


def _harmless(cell: str) -> str:
    shown = visible(cell)
    # A negative number is one; `-1+cmd()` is not.
    return f"'{shown}" if re.match(r"[=+\-@]", shown) and not re.fullmatch(r"[+-]?[\d.,]+%?", shown) else shown


def _markdown(cell: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|~])", r"\\\1", _one_line(cell))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Bare addresses would become links, and what stands between dollars a formula.
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("$", "&#36;")


def _latex(cell: str) -> str:
    return "".join(LATEX.get(character, character) for character in _one_line(cell))
