"""CSV that people open: no cell is a formula, and reading returns what was written."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.tabular import csv_text, harmless, original, read_csv, write_csv

SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
BEFORE = ("", " ", "\u00a0", "\u200b", "\ufeff", "\u202e", "\x00", "'", "''")


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", BEFORE)
def test_formulas_get_an_apostrophe_and_lose_it_again(before: str, sign: str) -> None:
    cell = f"{before}{sign}1+cmd|'/c calc'!A0"
    assert harmless(cell) == f"'{cell}"
    assert original(harmless(cell)) == cell


@pytest.mark.parametrize("cell", ["-1", "-0.25", "-1e-05", "+3.5%", "1,234", "'tis", "a=1", "", "−1"])
def test_numbers_and_plain_text_are_unchanged(cell: str) -> None:
    assert harmless(cell) == original(cell) == cell


TEXT = st.text(st.sampled_from("ab'\"=+-@＝ \t\r\n,0.\u200b\x00é"), max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_reading_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    write_csv(path, ["a", "=b"], rows)
    assert read_csv(path) == {"a": [row[0] for row in rows], "=b": [row[1] for row in rows]}


def test_long_cells(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", ["a"], [["x" * 200_000]])
    assert read_csv(tmp_path / "x.csv") == {"a": ["x" * 200_000]}


def test_numbers_and_empty_cells() -> None:
    assert csv_text(["x"], [[None], [float("nan")], [-0.5], [3]]) == 'x\n""\n""\n-0.5\n3\n'
    assert list(csv.reader(io.StringIO(csv_text(["x", "y"], [[None, 1]])))) == [["x", "y"], ["", "1"]]


@pytest.mark.parametrize(("content", "message"), [("", "no header"), ("a,b\n1\n", "line 2: 1 cells under 2 names")])
def test_damaged_files_are_a_value_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "x.csv")
