"""Tables as text: exact output, and nothing in a cell becomes markup, a command or a formula."""

import csv
import io
import re

from mtbert.report.text import Table, number, to_csv, to_latex, to_markdown, visible

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
        "\\begin{tabular}{lr}\n\\toprule\nName & Value \\\\\n\\midrule\none\\_a & 1.5 \\\\\ntwo \\& b & -0.20 \\\\\n\\bottomrule"
        in latex
    )


def test_numbers() -> None:
    assert [number(0.12345), number(None), number(2, 1)] == ["0.123", "–", "2.0"]


def test_no_cell_is_a_formula(hostile: list[str]) -> None:
    for text in hostile:
        cells = [cell for row in csv.reader(io.StringIO(to_csv(of(text)))) for cell in row]
        assert len(cells) == 2
        assert not re.match(r"[=+\-@\t\r]", cells[1]), text


def test_markdown_keeps_its_shape_and_lets_nothing_through(hostile: list[str]) -> None:
    for text in hostile:
        out = to_markdown(of(text))
        row = out.split("\n")[4]
        assert len(re.findall(r"(?<!\\)\|", row)) == 2, text
        assert not re.search(r"<\w|</", out), text
        assert not re.search(r"(?<!\\)\[[^\]]*\]\(", out), text
        assert "://" not in out and "www." not in out, text


def test_latex_has_no_command_from_a_cell(hostile: list[str]) -> None:
    allowed = r"\\(textbackslash|textasciitilde|textasciicircum|textbar|textless|textgreater)\{\}|\\[&%$#_{}]"
    for text in hostile:
        cell = to_latex(of(text)).split("\\midrule\n")[1].split(" \\\\\n\\bottomrule")[0]
        rest = re.sub(allowed, "", cell)
        assert not re.search(r"[\\&%$#_{}~^]", rest), (text, cell)


def test_visible_drops_what_cannot_be_seen() -> None:
    assert visible("a\u202eb\x00c\nd\u2066 ") == "a b c d"
    assert visible("naïve “ok” — 東京") == "naïve “ok” — 東京"
