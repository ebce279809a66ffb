"""Tables as CSV, Markdown, LaTeX and JSON. The text of a cell never becomes markup or a formula.

Captions, notes and `Math` cells are written by us and may hold markup: `code` between backticks and *math* between asterisks in a
caption or note, a formula in a `Math` cell. Every other cell is plain text.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import cycle, groupby
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.files import atomic_write_text
from mtbert.report.reading import reading
from mtbert.tabular import INVISIBLE, NUMBER, csv_text

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
    "`": r"\textasciigrave{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # LaTeX would read a bare bracket or asterisk as an argument of the \\ that ends the row before.
    "[": "{[}",
    "*": "{*}",
    "−": r"$-$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "½": r"$\frac{1}{2}$",
    "–": "--",
    "\u00ad": r"\-",
}
# What pdfLaTeX typesets without further packages, besides ASCII and accented Latin letters.
TYPESET = set("—‘’“”…łŁøØßæÆœŒıİ¡¿©£€°§•·×÷µ²³")
ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
MATH = {"−": "-", "±": r"\pm ", "α": r"\alpha ", "½": r"\frac{1}{2}", "·": r"\cdot ", "\\": "", "~": ""} | {
    mark: LATEX[mark] for mark in "&%$#_{}"
}
LONG = 30
"""In LaTeX, a text column is wrapped if one of its cells has more characters than this."""
LONG_WORD = 13
"""In LaTeX, a word of this many characters or more is made breakable, since a column may be narrower."""


class Math(str):
    """A formula, such as (u, v, |u−v|); typeset in LaTeX, plain text in the other formats."""


class Estimate(str):
    """A number and half the width of its interval, such as 0.738 ± 0.012; in CSV the interval's ends have columns of their own.

    Attributes:
        parts: value, low and high, as text.
    """

    parts: tuple[str, str, str]

    def __new__(cls, value: float, low: float, high: float) -> "Estimate":
        self = super().__new__(cls, f"{number(value)} ± {number((high - low) / 2)}")
        self.parts = (number(value), number(low), number(high))
        return self


class Table(NamedTuple):
    """A table, its cells formatted as text.

    Attributes:
        caption: one sentence, without the table's number.
        header: a unique name per column; in LaTeX and HTML, columns `Paper: A` and `Paper: B` share the heading `Paper`.
        rows: text cells; numbers are already formatted.
        notes: sentences below the table.
        numeric: whether each column holds numbers, which are right-aligned.
        name: such as "table1", from which the number and the LaTeX label are made; "" if it has none.
        bold: (row, column) of the bold cells.
    """

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str]
    numeric: tuple[bool, ...]
    name: str = ""
    bold: Sequence[tuple[int, int]] = ()

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """The columns as (heading, names below it); columns without a heading have ''."""
        parts = [name.rpartition(": ") for name in self.header]
        return [(heading, [name for *_, name in found]) for heading, found in groupby(parts, key=lambda part: part[0])]

    @property
    def title(self) -> str:
        """The caption after the table's number, such as "Table 1: Performance of ..."."""
        numbered = re.sub(r"(?=\d)", " ", self.name.capitalize(), count=1)
        return f"{numbered}: {self.caption}" if self.name else self.caption


def to_csv(table: Table) -> str:
    """The table as CSV, each cell on one line. A cell that a spreadsheet would run as a formula gets a leading apostrophe.

    Of a column with an `Estimate` it has three: NAME, NAME low and NAME high.
    """
    wide = [any(isinstance(row[column], Estimate) for row in table.rows) for column in range(len(table.header))]

    def spread(cells: Sequence[Sequence[str]]) -> list[str]:
        return [part for parts, three in zip(cells, wide, strict=True) for part in (parts if three else parts[:1])]

    header = spread([(name, f"{name} low", f"{name} high") for name in table.header])
    rows = (
        spread([cell.parts if isinstance(cell, Estimate) else (visible(cell), "", "") for cell in row])
        for row in table.rows
    )
    return csv_text(header, rows)


def to_markdown(table: Table) -> str:
    """A pipe table with caption and notes."""
    rule = " | ".join("---:" if number else "---" for number in table.numeric)
    cells = [[escaped(cell) for cell in row] for row in table.rows]
    for row, column in table.bold:
        cells[row][column] = f"**{cells[row][column]}**"
    lines = (" | ".join(map(escaped, table.header)), rule, *map(" | ".join, cells))
    body = "\n".join(f"| {line} |" for line in lines)
    code, math = (lambda text: f"`{_one_line(text)}`"), (lambda text: f"*{escaped(text)}*")
    notes = "".join(f"\n{prose(note, escaped, code, math)}\n" for note in table.notes)
    return f"**{escaped(table.title)}**\n\n{body}\n{notes}"


def to_latex(table: Table) -> str:
    """A floating table, at most as wide as the text: long text is wrapped, and a table still too wide is scaled down.

    The preamble needs \\usepackage{booktabs,graphicx,tabularx}.
    """
    wrapped = [
        not is_number and any(len(row[column]) > LONG for row in table.rows)
        for column, is_number in enumerate(table.numeric)
    ]
    kinds = "".join(
        "L" if long else "r" if number else "l" for long, number in zip(wrapped, table.numeric, strict=True)
    )
    columns = kinds.replace("L", r">{\raggedright\arraybackslash\hspace{0pt}}X")
    kind, width = ("tabularx", r"{\linewidth}") if any(wrapped) else ("tabular", "")
    bold = set(table.bold)
    rows = " \\\\\n".join(
        " & ".join(_latex_cell(cell, table.numeric[column], (index, column) in bold) for column, cell in enumerate(row))
        for index, row in enumerate(table.rows)
    )
    label = f"\\label{{tab:{table.name}}}" if table.name else ""
    notes = r" \par ".join(_latex_prose(note) for note in table.notes)
    return (
        "% needs \\usepackage{booktabs,graphicx,tabularx}\n\\begin{table}[htbp]\n\\centering\\footnotesize\n"
        f"\\setlength{{\\tabcolsep}}{{4pt}}\n\\caption{{{_latex_prose(table.caption)}}}{label}\n"
        f"\\sbox0{{\\begin{{{kind}}}{width}{{{columns}}}\n\\toprule\n{_latex_header(table)} \\\\\n\\midrule\n{rows} \\\\\n"
        f"\\bottomrule\n\\end{{{kind}}}}}\n"
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi\n"
        + (f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\raggedright {notes}}}\n" if notes else "")
        + "\\end{table}\n"
    )


def to_json(table: Table) -> str:
    """The table as JSON, which `read_table` reads."""
    return json.dumps(table._asdict(), indent=1, ensure_ascii=False) + "\n"


def write_table(table: Table, stem: Path) -> None:
    """Write stem.csv, .md, .tex and .json, each atomically."""
    # The report page reads the JSON.
    for ending, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex), ("json", to_json)):
        atomic_write_text(stem.with_name(f"{stem.name}.{ending}"), write(table))


def read_table(path: Path) -> Table:
    """Read a table written by `to_json`.

    Raises:
        MtbertError: the file is missing or damaged; the message names the stage to run.
    """
    with reading(path, f"table@{path.stem}"):
        found = json.loads(path.read_text(encoding="utf-8"))
        flat = {name: tuple(found[name]) for name in ("header", "numeric")}
        nested = {name: [tuple(part) for part in found[name]] for name in ("rows", "bold")}
        return Table(**found | flat | nested)


def visible(text: str) -> str:
    """The text on one line, without control characters and marks that change the direction of writing."""
    return _one_line(text).strip()


def escaped(text: str) -> str:
    """The text in Markdown, none of it markup."""
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", _one_line(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Keep bare URLs from becoming links, and text between dollars from becoming a formula.
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("$", "&#36;")


def number(value: float | None, digits: int = 3) -> str:
    """The value with a fixed number of decimals, or an en dash for None and NaN."""
    return "–" if value is None or isnan(value) else f"{value:.{digits}f}"


def probability(p: float) -> str:
    """A p-value with three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def setting(value: Any) -> str:
    """A setting's value as it is read: a list separated by commas, an en dash for one that is missing."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def bracketed(values: Sequence[float]) -> str:
    """Probabilities as the paper's Table 3 prints them."""
    return "[" + ", ".join(f"{value:.2f}" for value in values) + "]"


def prose(text: str, plain: Callable[[str], str], code: Callable[[str], str], math: Callable[[str], str]) -> str:
    """Our own prose, with a function applied to each part: plain text, `code` and *math*."""
    parts = re.split(r"`([^`]*)`|\*([^*]*)\*", text)  # plain text, then code or None, math or None, plain text, ...
    return "".join(
        show(part) for show, part in zip(cycle((plain, code, math)), parts, strict=False) if part is not None
    )


def _one_line(text: str) -> str:
    return re.sub(f"[{INVISIBLE}]+", " ", text)


def _latex(cell: str) -> str:
    text = unicodedata.normalize("NFC", visible(cell)).replace("\u00ad", "")
    text = re.sub(rf"\S{{{LONG_WORD},}}", lambda word: _breakable(word[0]), text)
    return "".join(_latex_character(character) for character in text)


def _breakable(word: str) -> str:
    """The word, with a soft hyphen after every fifth character where TeX would neither break nor hyphenate it (in a URL, for example).

    TeX itself breaks after dashes, and hyphenates words of fewer than 20 letters with punctuation around them, but no parts of a compound.
    """
    if re.fullmatch(r"[(\"“‘]{0,3}[^\W\d_]{1,19}(['’][^\W\d_]{1,2})?[)\"”'’.,;:!?]{0,3}", word):
        return word
    return "".join(
        part if len(part) < LONG_WORD else "\u00ad".join(part[start : start + 5] for start in range(0, len(part), 5))
        for part in re.split("([-–]+)", word)
    )


def _latex_character(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if (
        character.isascii()
        or character in TYPESET
        or (character < "\u0180" and letter.isascii() and ACCENTS.issuperset(marks))
    ):
        return character
    return f"{{[}}U+{ord(character):04X}]\\allowbreak{{}}"


def _latex_cell(cell: str, numeric: bool, bold: bool) -> str:
    if isinstance(cell, Math):
        return _latex_math(cell)
    if isinstance(cell, Estimate):
        return f"$\\mathbf{{{cell}}}$".replace("±", r"\pm") if bold else _latex_math(cell)
    if numeric and cell.startswith(("-", "−")) and NUMBER.fullmatch(cell.replace("−", "-")):
        digits = cell[1:].replace("%", r"\%")
        return f"$\\mathbf{{-{digits}}}$" if bold else f"$-{digits}$"
    return f"\\textbf{{{_latex(cell)}}}" if bold else _latex(cell)


def _latex_math(formula: str) -> str:
    return "$" + "".join(MATH.get(character, character) for character in formula) + "$"


def _latex_prose(text: str) -> str:
    return prose(text, _latex_plain, lambda code: f"\\texttt{{{_latex_plain(code)}}}", _latex_math)


def _latex_plain(text: str) -> str:
    """Like `_latex`, but keeps blanks at both ends, since the text stands between code and math."""
    return "".join(part if part == " " else _latex(part) for part in re.split("( )", text))


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
