"""Tables as the page shows them: the paper's number and the difference beside ours, and an interval below its value."""

from collections.abc import Sequence
from typing import NamedTuple

from mtbert.report.text import Table, visible

PAPER = "Paper: "
RECOMPUTED = f"{PAPER}recomputed"  # the overall score from the paper's other columns; shown only where it differs


class Cell(NamedTuple):
    """A cell.

    Attributes:
        below: what stands below the text in small type.
        best: whether it is the best of its column.
        items: lines of code that stand below the text, folded if there are many.
        shares: of a bar below the text, (name, share) of each part.
    """

    text: str
    below: str = ""
    best: bool = False
    items: Sequence[str] = ()
    shares: Sequence[tuple[str, float]] = ()


class Column(NamedTuple):
    """A column; neighbours may share a heading above their names, "" for none."""

    name: str
    heading: str
    numeric: bool
    cells: Sequence[Cell]


class Grid(NamedTuple):
    """A table for the page; its first column names the rows."""

    caption: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()

    @property
    def groups(self) -> list[tuple[str, list[Column]]]:
        """The columns by heading: neighbours that share one, and each that has none alone."""
        found: list[tuple[str, list[Column]]] = []
        for column in self.columns:
            if column.heading and found and found[-1][0] == column.heading:
                found[-1][1].append(column)
            else:
                found.append((column.heading, [column]))
        return found


def grid(table: Table) -> Grid:
    """The table with each numeric column `Paper: NAME` moved to the right of our column NAME, and the difference added."""
    columns = {name: _column(table, index) for index, name in enumerate(table.header)}
    shown: list[Column] = []
    for name, ours in columns.items():
        if name.startswith(PAPER):
            continue
        printed = columns.get(PAPER + name.lower(), columns.get(PAPER + name))
        if printed is None or not ours.numeric:
            shown.append(ours)
            continue
        if PAPER + name.lower() == f"{PAPER}overall" and RECOMPUTED in columns:
            printed = printed._replace(cells=[*map(_recomputed, printed.cells, columns[RECOMPUTED].cells)])
        difference = [Cell(_difference(one.text, other.text)) for one, other in zip(ours.cells, printed.cells, strict=True)]
        shown += [ours._replace(name="ours", heading=name), printed._replace(name="paper", heading=name)]
        shown.append(Column("difference", name, True, difference))
    paired = {PAPER + column.heading.lower() for column in shown} | {RECOMPUTED}
    shown += [column for name, column in columns.items() if name.startswith(PAPER) and name not in paired]
    return Grid(table.title if table.caption else "", shown, table.notes)


def _column(table: Table, index: int) -> Column:
    heading, _, name = table.header[index].rpartition(": ")
    cells = []
    for row, texts in enumerate(table.rows):
        value, _, width = texts[index].partition(" ± ") if table.numeric[index] else (texts[index], "", "")
        cells.append(Cell(visible(value), f"± {width}" if width else "", (row, index) in table.bold))
    return Column(name, heading, table.numeric[index], cells)


def _recomputed(printed: Cell, recomputed: Cell) -> Cell:
    same = abs(_number(printed.text) - _number(recomputed.text)) < 0.0015  # of three decimals, the last may differ by rounding
    return printed if same or recomputed.text == "–" else printed._replace(below=f"{recomputed.text} by its columns")


def _difference(ours: str, printed: str) -> str:
    found = _number(ours) - _number(printed)
    return "–" if found != found else f"{found:+.3f}".replace("-", "−")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # no number, such as "–"
        return float("nan")
