"""Figure 16: hostile sentences stay plain text in the HTML report, the CSV, Markdown and LaTeX tables, and the tables of examples."""

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import markupsafe
from markdown_it import MarkdownIt

from mtbert import tabular
from mtbert.files import atomic_write_text
from mtbert.report import page as page_of
from mtbert.report import results, text
from mtbert.report.error_analysis import analyse
from mtbert.report.graph import Node
from mtbert.report.page import page
from mtbert.report.runs import Runs
from mtbert.report.statistics import Interval, Statistics
from mtbert.report.tables import table4
from mtbert.report.text import to_csv, to_json, to_latex, to_markdown, visible
from mtbert.seal import seal
from mtbert.tabular import write_csv
from mtbert.tasks.paper import QUORA
from tests.reliability.trial import Tally

PLAIN = "a plain question"
PAYLOADS = [
    *(f"<{tag}>" for tag in (
        "script", "script>alert(1)</script", "svg onload=alert(1)", "iframe src=//evil.example",
        "img src=x onerror=alert(1)", "a href=javascript:alert(1)>x</a", "style>*{display:none}</style",
        "meta http-equiv=refresh content=0", "base href=//evil.example", "object data=x", "embed src=x",
        "form action=//evil.example", "link rel=stylesheet href=//evil.example", "body onload=alert(1)",
    )),
    "</td></tr></table><h1>x</h1>", "</code></td><script src=//evil.example></script>", "<!-- ", "--> <b>",
    "<![CDATA[<b>]]>", "<scr<script>ipt>", "<ScRiPt>alert(1)</sCrIpT>", "<\u0000script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", '" onfocus="alert(1)" autofocus="',
    "&lt;script&gt;", "&#60;script&#62;", "&amp;lt;b&amp;gt;", "＜script＞", "javascript:alert(1)",
    "[click](javascript:alert(1))", "[click](https://evil.example 'title')", "![x](https://evil.example/x.png)",
    "[ref]: https://evil.example", "<https://evil.example>", "https://evil.example/", "www.evil.example",
    "a | b | c", "`code` **bold** _it_ ~~no~~ \\", "``` fence", "# heading", "- list", "> quote", "***",
    "\\| \\` \\*", "$x^2$ and $$y$$", "=1+cmd|'/c calc'!A0", '=HYPERLINK("https://evil.example")', "+1+1", "-1+1",
    "-2+3+cmd|'/c calc'!A0", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "\u200b=1+1", "\u00a0=1+1",
    "\ufeff=1+1", "\u202e=1+1", "＝1+1", "＋1+1", "－1+1", "＠SUM(A1)", "'=1+1", "''-1", ";=1+1", '",=1+1,"',
    "\\input{/etc/passwd}", "\\write18{ls}", "\\def\\x{\\x}\\x", "\\end{tabular}\\newpage", "^^5cinput{x}",
    "100% $x$ #1 a_b {c} ~ ^ & \\", "\\\\[5cm]", "[2cm]", "*", "} \\relax {", "%", "\u202eright to left\u202c",
    "\u2066isolate\u2069 \u061c \u200f", "שלום עולם", "nul\x00 bell\x07 escape\x1b[31m delete\x7f c1\x9b",
    "two\nlines", "two\r\nlines", "paragraph\u2029separator\u2028line", "{{ 7*7 }} {% for x in y %}", "{% raw %}",
    "${7*7} #{7*7}", "None", "NA", "", "x" * 10_000, "👩‍👩‍👧", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙",
]  # fmt: skip


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Each payload as both questions of the most confident mistake, in a malformed row's fault and in provenance."""
    tally = Tally(16, "hostile sentences in the report", "≥ 50 payloads, 0 active", seed)
    # Long cells are typeset in another kind of column.
    plains = [_written(folder, PLAIN), _written(folder, 9 * PLAIN)]
    for payload in PAYLOADS[:: 4 if quick else 1]:
        plain = plains[len(payload) > text.LONG]
        for kind, fault in _faults(_written(folder, payload), plain, payload).items():
            tally.trial(not fault, f"{kind}, {payload[:60]!r}: {fault}")
    for bug, owner, part, plant, payload, kind in PLANTED:
        with patch.object(owner, part, plant):
            tally.control(bool(_faults(_written(folder, payload), plains[0], payload)[kind]), bug)
    formats = "HTML, CSV, Markdown, LaTeX and tables of examples"
    tally.note = f"{len(PAYLOADS)} payloads × {formats}; judged by parsers, without a LaTeX run"
    return [tally]


def _faults(written: dict[str, str], plain: dict[str, str], payload: str) -> dict[str, str]:
    """What is active in each of the five formats, compared with a plain question."""
    return {
        "HTML": _html(written["HTML"], plain["HTML"], payload),
        "CSV": _csv(written["CSV"], plain["CSV"]),
        "Markdown": _markdown(written["Markdown"], plain["Markdown"]),
        "LaTeX": _latex(written["LaTeX"], plain["LaTeX"]),
        "examples": _examples(written, payload),
    }


class _Page(HTMLParser):
    """A page's text, and its tags with their attributes except src and alt."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.skeleton: list[Any] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        shown = [(name, value if name not in ("src", "alt") else "") for name, value in attributes]
        sources = [value for name, value in attributes if name == "src" and not str(value).startswith("data:")]
        self.skeleton.append((tag, shown, sources))

    def handle_endtag(self, tag: str) -> None:
        self.skeleton.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.skeleton.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.skeleton.append(decl)

    def unknown_decl(self, data: str) -> None:
        self.skeleton.append("declaration")

    def handle_data(self, data: str) -> None:
        self.text += data


def _html(html: str, plain: str, payload: str) -> str:
    found, expected = _Page(html), _Page(plain)
    if found.skeleton != expected.skeleton:
        return f"other tags: {[tag for tag in found.skeleton if tag not in expected.skeleton][:3]}"
    if found.text.count(visible(payload)) < 2:
        return "the sentence is not shown as it is"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html):
        return "a control character or direction mark is left"
    return ""


def _csv(written: str, plain: str) -> str:
    rows, expected = (list(csv.reader(io.StringIO(part, newline=""))) for part in (written, plain))
    if [len(row) for row in rows] != [len(row) for row in expected]:
        return "other rows or columns"
    for cell in (cell for row in rows for cell in row):
        if _formula(cell):
            return f"a formula: {cell[:40]!r}"
        if "\n" in cell or "\r" in cell:
            return "a cell of two lines"
    return ""


def _formula(cell: str) -> bool:
    # Spreadsheets skip these before a formula, Unicode blanks included.
    start = re.sub(r"^[\s\x00-\x1f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+", "", cell)[:1]
    return start in ("=", "+", "-", "@", "＝", "＋", "－", "＠") and not re.fullmatch(r"[+-]?[\d.,]+%?", cell)


def _examples(written: dict[str, str], payload: str) -> str:
    """Tables of examples keep the sentence unchanged, so it may have several lines and must be read back the same."""
    rows = list(csv.reader(io.StringIO(written["examples"], newline="")))
    if {len(row) for row in rows} != {6}:
        return "other rows or columns"
    if formulas := [cell for row in rows for cell in row if _formula(cell) or cell[:1] in ("\t", "\r", "\n")]:
        return f"a formula: {formulas[0][:40]!r}"
    return "" if written["read back"] == payload else f"read back as {written['read back'][:40]!r}"


def _markdown(written: str, plain: str) -> str:
    kinds, expected = _tokens(written), _tokens(plain)
    if kinds != expected:
        return f"markup: {dict(kinds - expected)}, lost: {dict(expected - kinds)}"
    if written.count("\n") != plain.count("\n"):
        return "other lines"
    linked = re.search(r"(https?|ftp)://|www\.", written)
    return "a bare address" if linked else "a formula" if written.count("$") != plain.count("$") else ""


def _tokens(markdown: str) -> Counter[str]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = [part for token in parser.parse(markdown) for part in (token, *(token.children or []))]
    return Counter(token.type for token in tokens if token.type not in ("text", "text_special"))


ESCAPES = {
    rf"\{name}" for name in ("textbackslash", "textasciitilde", "textasciicircum", "textbar", "textless", "textgreater")
}
ESCAPES |= {rf"\{mark}" for mark in "&%$#_{}-"} | {r"\textasciigrave", r"\allowbreak"}


def _latex(written: str, plain: str) -> str:
    commands, expected = (Counter(re.findall(r"\\(?:[a-zA-Z]+|.)", part, re.DOTALL)) for part in (written, plain))
    if more := {name for name in (commands - expected) if name not in ESCAPES}:
        return f"commands: {sorted(more)[:5]}"
    bare, bare_plain = (re.sub(r"\\(?:[a-zA-Z]+|.)", "", part, flags=re.DOTALL) for part in (written, plain))
    for mark in "&%$#_~^\\":
        if bare.count(mark) != bare_plain.count(mark):
            return f"a bare {mark}"
    if bare.count("{") != bare.count("}") or written.count("\n") != plain.count("\n"):
        return "other lines or unbalanced braces"
    return "an argument after a row's end" if re.search(r"\\\\\s*[\[*]", written) else ""


def _written(folder: Path, payload: str) -> dict[str, str]:
    path = folder / "results/best_performance/examples/quora-dev.csv"
    rows: list[list[Any]] = [
        ["q0", payload, payload, 0, 1, 0.99],
        ["q1", payload, payload, 1, 0, 0.01],
        ["q2", "a", "b", 1, 1, 0.9],
    ]
    header = ["id", "sentence1", "sentence2", "label", "prediction", "score"]  # as the evaluate stage writes it
    write_csv(path, header, [*rows, ["q3", "a", "b", 0, 1, 0.6]])
    write_csv(folder / "results/best_performance/history.csv", ["epoch", "dev_quora"], [[0, 0.5]])
    seal(folder / "results/best_performance")
    table = table4(folder / "results", {"best_performance": "best_performance"}, Statistics({}, {}))
    atomic_write_text(folder / "tables/table4.json", to_json(table))
    bad = {"where": "data/raw/quora-train.csv:3:5", "what": f"id {payload!r} is already on line 2"}
    split = {"present": True, "rows_read": 9, "rows_kept": 8, "repeated": {"sentences": 1}, "labels": {"0": 3, "1": 5}}
    split |= {
        "wordpieces": {"mean": 9.0, "longest": 12},
        "over_long": {"sequences": 0},
        "leaked": {"rows": 1, "removed": 0},
    }
    prepared = {
        "settings": {"max_tokens": 64, "on_bad_row": "drop", "leakage": "keep"},
        "tasks": {"quora": {"train": {**split, "bad_rows": {"count": 1, "listed": [bad]}}}},
    }
    metrics = {
        "dev": {"overall": 0.5, "quora": {"accuracy": 0.5, "n": 4}},
        "training": {"tasks": ["quora"], "steps": 1, "tokens": 1},
        "parameters": {"total": 99, "trainable": 90, "adapters_only": None},
    }
    scores = {name: Interval(0.5, 0.4, 0.6) for name in ("overall", "quora")}
    best = "best_performance"
    runs = Runs(folder / "results", {best: metrics}, {best: {}}, {}, {}, Statistics({best: scores}, {}))
    html = page(
        folder,
        runs,
        lead=payload,
        findings={"generated": False, "claims": [], "errata": []},
        errors=analyse(folder / "results", {best: metrics}, [QUORA]),
        compared=[best],
        tables=["table4"],
        figures=[],
        tasks={"quora": QUORA},
        prepared=prepared,
        graph=[Node("report", "", [])],
        provenance={"Encoder": f"name {payload}"},
    )
    return {
        "HTML": html,
        "CSV": to_csv(table),
        "Markdown": to_markdown(table),
        "LaTeX": to_latex(table),
        "examples": path.read_bytes().decode(),
        "read back": str(results.examples(folder / "results", "best_performance", "quora")["sentence1"][0]),
    }


PLANTED: list[tuple[str, Any, str, Any, str, str]] = [
    ("HTML not escaped", page_of, "visible", markupsafe.Markup, "<script>alert(1)</script>", "HTML"),
    ("control characters left in", text, "_one_line", str, "\u202eright to left", "HTML"),
    ("formulas not escaped", tabular, "harmless", str, "=1+1", "CSV"),
    ("formulas behind blanks overlooked", tabular, "FORMULA", re.compile(r"[=+\-@]"), "\u200b=1+1", "examples"),
    ("full-width formulas overlooked", tabular, "FORMULA", re.compile(r"[\s]*[=+\-@]"), "＝1+1", "CSV"),
    ("apostrophes left in when read back", tabular, "original", str, "=1+1", "examples"),
    ("Markdown not escaped", text, "escaped", str, "[click](https://evil.example)", "Markdown"),
    ("LaTeX not escaped", text, "_latex", str, "\\input{/etc/passwd}", "LaTeX"),
]
