"""A table of text cells as CSV, Markdown and LaTeX; what a cell says never becomes markup or a formula."""

import csv
import io
import re
from collections.abc import Sequence
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
    "−": r"$-$",
    "α": r"$\alpha$",
    "–": "--",
}


class Table(NamedTuple):
    """A table as its readers see it.

    Attributes:
        caption: one sentence.
        header: a name per column.
        rows: text cells; numbers are formatted already.
        notes: what a reader must know, a sentence each.
        numeric: which columns are numbers, to be set flush right.
    """

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str]
    numeric: tuple[bool, ...]


def to_csv(table: Table) -> str:
    """Comma-separated; a cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table with caption and notes."""
    rule = ["---:" if number else "---" for number in table.numeric]
    lines = [table.header, rule, *table.rows]
    body = "\n".join(
        "| " + " | ".join(cell if cell in rule else _markdown(cell) for cell in row) + " |" for row in lines
    )
    notes = "".join(f"\n{_markdown(note)}\n" for note in table.notes)
    return f"**{_markdown(table.caption)}**\n\n{body}\n{notes}"


def to_latex(table: Table) -> str:
    """A booktabs table."""
    columns = "".join("r" if number else "l" for number in table.numeric)
    rows = " \\\\\n".join(" & ".join(_latex(cell) for cell in row) for row in table.rows)
    notes = "".join(f"\\par\\footnotesize {_latex(note)}\n" for note in table.notes)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_latex(table.caption)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{' & '.join(_latex(cell) for cell in table.header)} \\\\\n\\midrule\n{rows} \\\\\n\\bottomrule\n\\end{{tabular}}\n"
        f"{notes}\\end{{table}}\n"
    )


def visible(text: str) -> str:
    """Text on one line, without control characters and the marks that turn the direction of writing."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+", " ", text).strip()


def _harmless(cell: str) -> str:
    shown = visible(cell)
    # A negative number is one; `-1+cmd()` is not.
    return f"'{shown}" if re.match(r"[=+\-@]", shown) and not re.fullmatch(r"[+-]?[\d.,]+%?", shown) else shown


def _markdown(cell: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|~])", r"\\\1", visible(cell))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Bare addresses would become links.
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def _latex(cell: str) -> str:
    return "".join(LATEX.get(character, character) for character in visible(cell))


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits, with an en dash for what is not there."""
    return "–" if value is None else f"{value:.{digits}f}"


def bracketed(values: Sequence[float]) -> str:
    """Probabilities as the paper's Table 3 prints them."""
    return "[" + ", ".join(f"{value:.2f}" for value in values) + "]"
