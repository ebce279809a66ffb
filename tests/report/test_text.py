"""Tables as text: exact output, and nothing in a cell becomes markup, a command or a formula."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.report.text import (
    Estimate,
    Math,
    Table,
    number,
    read_table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    visible,
)
from tests.report.conftest import HOSTILE

PLAIN = Table("A: caption", ("Name", "Value"), [("one_a", "1.5"), ("two & b", "-0.20")], ["A note."], (False, True))


def of(cell: str) -> Table:
    return Table("c", ("h",), [(cell,)], [cell], (False,))


def test_exact_output() -> None:
    assert to_csv(PLAIN) == "Name,Value\none_a,1.5\ntwo & b,-0.20\n"
    assert (
        to_markdown(PLAIN)
        == "**A: caption**\n\n| Name | Value |\n| --- | ---: |\n| one\\_a | 1.5 |\n| two &amp; b | -0.20 |\n\nA note.\n"
    )
    latex = to_latex(PLAIN)
    assert (
        "\\begin{tabular}{lr}\n\\toprule\nName & Value \\\\\n\\midrule\none\\_a & 1.5 \\\\\ntwo \\& b & $-0.20$ \\\\\n\\bottomrule"
        in latex
    )


def test_columns_of_the_paper_stand_under_one_heading() -> None:
    table = Table("c", ("Name", "Paper: a", "Paper: b"), [("x", "1", "2")], [], (False, True, True))
    assert table.groups == [("", ["Name"]), ("Paper", ["a", "b"])]
    assert to_csv(table).startswith("Name,Paper: a,Paper: b\n")
    latex = " & \\multicolumn{2}{c}{Paper} \\\\\n\\cmidrule(lr){2-3}\nName & a & b \\\\\n\\midrule\n"
    assert f"\\toprule\n{latex}" in to_latex(table)


def test_code_in_notes() -> None:
    table = Table("c", ("h",), [("x",)], ["Set `a_b: 1`, not a_b."], (False,))
    assert to_markdown(table).endswith("\nSet `a_b: 1`, not a\\_b.\n")
    assert "\\raggedright Set \\texttt{a\\_b: 1}, not a\\_b.}\n" in to_latex(table)


def test_math_labels_and_bold() -> None:
    rows = [(Math("(|u+v|, |u−v|)"), "-0.5"), ("|a|", "-0.7")]
    table = Table("Of *r*.", ("a", "b"), rows, ["*|D|^α* with *½*"], (False, True), "table2", [(0, 1)])
    latex = to_latex(table)
    assert "\\caption{Of $r$.}\\label{tab:table2}" in latex, "LaTeX writes the number itself"
    assert "$(|u+v|, |u-v|)$ & $\\mathbf{-0.5}$ \\\\\n\\textbar{}a\\textbar{} & $-0.7$ " in latex
    assert "$|D|^\\alpha $ with $\\frac{1}{2}$" in latex
    markdown = to_markdown(table)
    assert markdown.startswith("**Table 2: Of") and "| **-0.5** |" in markdown and "*\\|D\\|^α* with *½*" in markdown
    assert "**" not in to_csv(table)


def test_an_estimate_has_its_interval_in_csv_and_half_its_width_elsewhere(tmp_path: Path) -> None:
    rows = [("a", Estimate(-0.25, -0.3, -0.21)), ("b", "–")]
    table = Table("c", ("Name", "r"), rows, ["±: a half."], (False, True), "", [(0, 1)])
    assert to_csv(table) == "Name,r,r low,r high\na,-0.250,-0.300,-0.210\nb,–,,\n"
    assert "| **-0.250 ± 0.045** |" in to_markdown(table)
    assert "a & $\\mathbf{-0.250 \\pm 0.045}$ \\\\" in to_latex(table)
    assert "$-0.250 \\pm  0.045$" in to_latex(table._replace(bold=[]))
    (tmp_path / "t.json").write_text(to_json(table), encoding="utf-8")
    assert read_table(tmp_path / "t.json").rows == rows


def test_json_gives_the_table_back(tmp_path: Path) -> None:
    rows = [(text, "1") for text in HOSTILE]
    table = Table("c", ("a", "Paper: b"), rows, HOSTILE, (False, True), "table9", [(0, 1)])
    (tmp_path / "table9.json").write_text(to_json(table), encoding="utf-8")
    assert read_table(tmp_path / "table9.json") == table


def test_latex_wraps_long_text_and_takes_no_cell_for_an_argument() -> None:
    latex = to_latex(Table("c", ("a", "b"), [("word " * 20, "1"), ("[2pt]", "2"), ("*", "3")], [], (False, True)))
    assert "\\begin{tabularx}{\\linewidth}{>{\\raggedright\\arraybackslash\\hspace{0pt}}Xr}" in latex
    assert "\\\\\n{[}2pt] & 2 \\\\\n{*} & 3 " in latex, "a row's end may not be followed by a bare bracket or star"
    assert latex.count("{") == latex.count("}")


TEXT = st.text(st.sampled_from("ab \n\t\r\0|\\`*_[]{}<>&%$#~^\"'=+-@−α½:/.w\u202e\u2028"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_any_text_stays_text(text: str) -> None:
    (_, (cell,)) = csv.reader(io.StringIO(to_csv(of(f"x{text}"))))
    assert cell == visible(f"x{text}")
    (_, (cell,)) = csv.reader(io.StringIO(to_csv(of(f"={text}"))))
    assert cell == f"'{visible(f'={text}')}"
    row = to_markdown(of(text)).split("\n")[4].removeprefix("| ").removesuffix(" |").replace("\\\\", "")
    assert not re.search(r"(?<!\\)[`*_\[\]|~]|<|://|\$", row), row


def test_numbers() -> None:
    assert [number(0.12345), number(None), number(2, 1)] == ["0.123", "–", "2.0"]


def test_markdown_keeps_its_shape_and_lets_nothing_through() -> None:
    for text in HOSTILE:
        out = to_markdown(of(text))
        row = out.split("\n")[4]
        assert len(re.findall(r"(?<!\\)\|", row)) == 2, text
        assert not re.search(r"<\w|</", out), text
        assert not re.search(r"(?<!\\)\[[^\]]*\]\(", out), text
        assert "://" not in out and "www." not in out and "$" not in out, text


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("Performance–Most Efficient", "Performance--Most Efficient"),  # TeX breaks after the dash
        ("the leaderboard's files", "the leaderboard's files"),  # and hyphenates these
        ("(configurations, “concatenation”: x", "(configurations, “concatenation”: x"),
        ("extraordinarily-long", "extra\\-ordin\\-arily-long"),  # but no part of a compound,
        ("key_update_3–x", "key\\_update\\_3--x"),
        ("https://example/x", "https\\-://ex\\-ample\\-/x"),  # nor what is not letters,
        ("configuration" + "!" * 9, "confi\\-gurat\\-ion!!\\-!!!!!\\-!!"),
        ("x" * 21, "\\-".join(["xxxxx"] * 4) + "\\-x"),  # nor what is no word
    ],
)
def test_latex_hyphenates_only_what_tex_does_not(text: str, latex: str) -> None:
    assert to_latex(of(text)).split("\\midrule\n")[1].split(" \\\\\n\\bottomrule")[0] == latex


def test_latex_has_no_command_from_a_cell() -> None:
    allowed = r"\\(textbackslash|textasciitilde|textasciicircum|textbar|textless|textgreater|textasciigrave|allowbreak)\{\}|\\[&%$#_{}-]|\{[\[*]\}"
    for text in HOSTILE:
        cell = to_latex(of(text)).split("\\midrule\n")[1].split(" \\\\\n\\bottomrule")[0]
        rest = re.sub(allowed, "", cell)
        assert not re.search(r"[\\&%$#_{}~^]", rest), (text, cell)


def test_visible_drops_what_cannot_be_seen() -> None:
    assert visible("a\u202eb\x00c\nd\u2066 ") == "a b c d"
    assert visible("naïve “ok” — 東京") == "naïve “ok” — 東京"
