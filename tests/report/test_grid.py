"""Tables for the page: the paper's columns beside ours."""

from pathlib import Path

import pytest

from mtbert.report.grid import Cell, grid
from mtbert.report.statistics import Statistics
from mtbert.report.tables import TABLES
from mtbert.report.text import Table
from tests.report.conftest import ROWS


def test_each_number_has_the_papers_and_the_difference_beside_it() -> None:
    header = ("Model", "Overall", "Steps", "Paper: overall", "Paper: recomputed", "Paper: kind")
    rows = [("a", "0.738 ± 0.012", "9", "0.494", "0.499", "x"), ("b", "–", "8", "0.779", "0.779", "y")]
    found = grid(
        Table("Scores.", header, rows, ["A note."], (False, True, True, True, True, False), "table1", [(0, 1)])
    )
    assert found.caption == "Table 1: Scores." and found.notes == ["A note."]
    assert [(heading, [column.name for column in columns]) for heading, columns in found.groups] == [
        ("", ["Model"]),
        ("Overall", ["ours", "paper", "difference"]),
        ("", ["Steps"]),
        ("Paper", ["kind"]),
    ]
    ours, printed, difference = (column.cells for column in found.groups[1][1])
    assert ours == [Cell("0.738", "±\N{NO-BREAK SPACE}0.012", best=True), Cell("–")]
    assert printed == [Cell("0.494", "0.499 recomputed"), Cell("0.779")], "where rounding does not explain it"
    assert [cell.text for cell in difference] == ["+0.244", "–"]


@pytest.mark.parametrize(("name", "differences"), [("table1", 4), ("table2", 1), ("table3", 1), ("table4", 0)])
def test_the_tables_of_the_paper(results: Path, statistics: Statistics, name: str, differences: int) -> None:
    names = [column.name for column in grid(TABLES[name](results, ROWS[name], statistics)).columns]
    assert names.count("difference") == names.count("ours") == differences
    assert "recomputed" not in names
