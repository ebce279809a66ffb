"""Tables as the page shows them: the paper's number and the difference beside ours, and an interval below its value."""

from collections.abc import Sequence
from typing import NamedTuple

from mtbert.report.text import Table

PAPER = "Paper: "


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
    cells: Sequence[Cell]
    numeric: bool = False
    heading: str = ""


class Grid(NamedTuple):
    """A table for the page; its first column names the rows."""

    columns: Sequence[Column]
    notes: Sequence[str] = ()
    caption: str = ""

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
    printed = {name.removeprefix(PAPER).lower(): column for name, column in columns.items() if name.startswith(PAPER)}
    recomputed = printed.pop("recomputed", None)
    shown: list[Column] = []
    for name, ours in columns.items():
        if name.startswith(PAPER):
            continue
        if not ours.numeric or name.lower() not in printed:
            shown.append(ours)
            continue
        theirs = printed.pop(name.lower())
        if name == "Overall" and recomputed:
            theirs = theirs._replace(cells=[*map(_with_recomputed, theirs.cells, recomputed.cells)])
        difference = [
            Cell(_difference(one.text, other.text)) for one, other in zip(ours.cells, theirs.cells, strict=True)
        ]
        shown += [ours._replace(name="ours", heading=name), theirs._replace(name="paper", heading=name)]
        shown.append(Column("difference", difference, True, name))
    return Grid([*shown, *printed.values()], table.notes, table.title)


def _column(table: Table, index: int) -> Column:
    heading, _, name = table.header[index].rpartition(": ")
    cells = []
    for row, texts in enumerate(table.rows):
        value, _, width = texts[index].partition(" ± ") if table.numeric[index] else (texts[index], "", "")
        cells.append(Cell(value, f"±\N{NO-BREAK SPACE}{width}" if width else "", (row, index) in table.bold))
    return Column(name, cells, table.numeric[index], heading)


def _with_recomputed(printed: Cell, recomputed: Cell) -> Cell:
    """The paper's overall score, and below it the recomputed one if they differ by more than rounding."""
    differs = abs(_number(printed.text) - _number(recomputed.text)) > 0.0015
    return printed._replace(below=f"{recomputed.text} recomputed") if differs else printed


def _difference(ours: str, printed: str) -> str:
    found = _number(ours) - _number(printed)
    return "–" if found != found else f"{found:+.3f}".replace("-", "−")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # no number, such as "–"
        return float("nan")
