"""Figure 16: hostile sentences stay text in the HTML report and in the CSV, Markdown and LaTeX tables."""

import csv
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import markupsafe
from markdown_it import MarkdownIt

from mtbert.report import page as page_of
from mtbert.report import text
from mtbert.report.figures import FIGURES
from mtbert.report.page import page
from mtbert.report.paper import FIGURE_3, TABLE_1, TABLE_2, TABLE_3
from mtbert.report.tables import table4
from mtbert.report.text import to_csv, to_latex, to_markdown, visible
from reliability.trial import Tally, Trial

PLAIN = "a plain question"
PAYLOADS = [
    *(f"<{tag}>" for tag in ("script", "script>alert(1)</script", "svg onload=alert(1)", "iframe src=//evil.example")),
    *(
        f"<{tag}>"
        for tag in ("img src=x onerror=alert(1)", "a href=javascript:alert(1)>x</a", "style>*{display:none}</style")
    ),
    *(
        f"<{tag}>"
        for tag in ("meta http-equiv=refresh content=0", "base href=//evil.example", "object data=x", "embed src=x")
    ),
    *(
        f"<{tag}>"
        for tag in ("form action=//evil.example", "link rel=stylesheet href=//evil.example", "body onload=alert(1)")
    ),
    "</td></tr></table><h1>x</h1>",
    "</code></td><script src=//evil.example></script>",
    "<!-- ",
    "--> <b>",
    "<![CDATA[<b>]]>",
    "<scr<script>ipt>",
    "<ScRiPt>alert(1)</sCrIpT>",
    "<\u0000script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" onfocus="alert(1)" autofocus="',
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&amp;lt;b&amp;gt;",
    "＜script＞",
    "javascript:alert(1)",
    "[click](javascript:alert(1))",
    "[click](https://evil.example 'title')",
    "![x](https://evil.example/x.png)",
    "[ref]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example/",
    "www.evil.example",
    "a | b | c",
    "`code` **bold** _it_ ~~no~~ \\",
    "``` fence",
    "# heading",
    "- list",
    "> quote",
    "***",
    "\\| \\` \\*",
    "$x^2$ and $$y$$",
    "=1+cmd|'/c calc'!A0",
    '=HYPERLINK("https://evil.example")',
    "+1+1",
    "-1+1",
    "-2+3+cmd|'/c calc'!A0",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "\u200b=1+1",
    "\u00a0=1+1",
    "\ufeff=1+1",
    "\u202e=1+1",
    "＝1+1",
    ";=1+1",
    '",=1+1,"',
    "\\input{/etc/passwd}",
    "\\write18{ls}",
    "\\def\\x{\\x}\\x",
    "\\end{tabular}\\newpage",
    "^^5cinput{x}",
    "100% $x$ #1 a_b {c} ~ ^ & \\",
    "\\\\[5cm]",
    "[2cm]",
    "*",
    "} \\relax {",
    "%",
    "\u202eright to left\u202c",
    "\u2066isolate\u2069 \u061c \u200f",
    "שלום עולם",
    "nul\x00 bell\x07 escape\x1b[31m delete\x7f c1\x9b",
    "two\nlines",
    "two\r\nlines",
    "paragraph\u2029separator\u2028line",
    "{{ 7*7 }} {% for x in y %}",
    "{% raw %}",
    "${7*7} #{7*7}",
    "None",
    "NA",
    "",
    "x" * 10_000,
    "👩‍👩‍👧",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙",
]


def run(quick: bool, seed: int, folder: Path) -> list[Trial]:
    """Each payload as both questions of the most confident mistake, in a malformed row's fault and in provenance."""
    tally = Tally(16, "hostile sentences in the report", "≥ 50 payloads, 0 active", seed)
    _results(folder)
    # Long cells are set in another kind of column.
    plains = [_written(folder, PLAIN), _written(folder, 9 * PLAIN)]
    for payload in PAYLOADS[:: 4 if quick else 1]:
        plain = plains[len(payload) > text.LONG]
        for kind, fault in _faults(_written(folder, payload), plain, payload).items():
            tally.trial(not fault, f"{kind}, {payload[:60]!r}: {fault}")
    for bug, owner, part, plant, payload, kind in PLANTED:
        with patch.object(owner, part, plant):
            tally.control(bool(_faults(_written(folder, payload), plains[0], payload)[kind]), bug)
    return [
        tally.done(f"{len(PAYLOADS)} payloads × HTML, CSV, Markdown and LaTeX; judged by parsers, without a LaTeX run")
    ]


def _faults(written: dict[str, str], plain: dict[str, str], payload: str) -> dict[str, str]:
    """What is active in each of the four, against the same with a plain question."""
    return {
        "HTML": _html(written["HTML"], plain["HTML"], payload),
        "CSV": _csv(written["CSV"], plain["CSV"]),
        "Markdown": _markdown(written["Markdown"], plain["Markdown"]),
        "LaTeX": _latex(written["LaTeX"], plain["LaTeX"]),
    }


class _Page(HTMLParser):
    """A page's tags with their attributes, but for pictures' and texts, and its text."""

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
        return "the sentence is not told as it is"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html):
        return "a control character or mark of direction is left"
    return ""


def _csv(written: str, plain: str) -> str:
    rows, expected = (list(csv.reader(io.StringIO(part, newline=""))) for part in (written, plain))
    if [len(row) for row in rows] != [len(row) for row in expected]:
        return "other rows or columns"
    for cell in (cell for row in rows for cell in row):
        # What a spreadsheet skips before it looks for a formula, Unicode's blanks and its wide signs included.
        start = re.sub(r"^[\s\x00-\x1f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+", "", cell)[:1]
        if start in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?[\d.,]+%?", cell):
            return f"a formula: {cell[:40]!r}"
        if "\n" in cell or "\r" in cell:
            return "a cell of two lines"
    return ""


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
ESCAPES |= {rf"\{mark}" for mark in "&%$#_{}"}


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
    rows = [["q0", payload, payload, 0, 1, 0.99], ["q1", payload, payload, 1, 0, 0.01], ["q2", "a", "b", 1, 1, 0.9]]
    _examples(path, [*rows, ["q3", "a", "b", 0, 1, 0.6]], pair=True)
    table = table4(folder / "results")
    bad = {"where": "data/raw/quora-train.csv:3:5", "what": f"id {payload!r} stands on line 2 already"}
    split = {"present": True, "rows_read": 9, "rows_kept": 8, "repeated": {"sentences": 1}, "wordpieces": {"total": 99}}
    prepared = {
        "tasks": {"quora": {"train": {**split, "bad_rows": {"count": 1, "listed": [bad]}, "leaked": {"rows": 1}}}}
    }
    runs = {run: json.loads((folder / "results" / run / "metrics.json").read_text()) for run in RUNS}
    html = page(
        folder / "results",
        folder,
        lead=payload,
        metrics=runs,
        records={name: {"seconds": 1.5} for name in RUNS},
        prepared=prepared,
        provenance={"Encoder": f"name {payload}"},
    )
    return {"HTML": html, "CSV": to_csv(table), "Markdown": to_markdown(table), "LaTeX": to_latex(table)}


RUNS = sorted({row[1] for table in (TABLE_1, TABLE_2, TABLE_3, FIGURE_3) for row in table} | {"dora_r16"})


def _results(folder: Path) -> None:
    """What the evaluate stage leaves, with made-up scores; and pictures for the page to hold."""
    for n, name in enumerate(RUNS):
        sizes = {"sst": 9, "quora": 8, "sts": 7}
        metrics = {
            "dev": {
                "sst": {"accuracy": 0.4 + n / 100, "n": 5, "majority": 0.4},
                "quora": {"accuracy": 0.6 + n / 100, "n": 4, "majority": 0.6},
                "sts": {"pearson": 0.5 + n / 100, "n": 4},
                "overall": 0.5 + n / 100,
            },
            "test": {},
            "parameters": {"total": 99, "trainable": 90 + n, "adapters_only": 9 + n if "dora" in name else None},
            "training": {"tasks": list(sizes), "sizes": sizes, "batches": sizes, "probabilities": None, "tokens": 99}
            | {"sampler": "balanced", "epochs": 2, "steps": 24, "batch_size": 4, "learning_rate": 1e-4},
        }
        (folder / "results" / name).mkdir(parents=True)
        (folder / "results" / name / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    best = folder / "results/best_performance"
    (best / "history.csv").write_text("epoch,train_sst,dev_sst\n0,0.2,0.2\n1,0.4,0.3\n", encoding="utf-8")
    _examples(best / "examples/sst-dev.csv", [["i", "a", n % 5, (n + 1) % 5, 0.5] for n in range(10)], pair=False)
    _examples(best / "examples/sts-dev.csv", [["i", "a", "b", n % 6, 2.5, 2.5] for n in range(10)], pair=True)
    (folder / "figures").mkdir()
    for name in FIGURES:
        (folder / "figures" / f"{name}.svg").write_text("<svg/>", encoding="utf-8")


def _examples(path: Path, rows: list[list[Any]], pair: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "sentence1", *(["sentence2"] if pair else []), "label", "prediction", "score"])
        writer.writerows(rows)


PLANTED: list[tuple[str, Any, str, Any, str, str]] = [
    ("HTML not escaped", page_of, "visible", markupsafe.Markup, "<script>alert(1)</script>", "HTML"),
    ("control characters left in", text, "_one_line", str, "\u202eright to left", "HTML"),
    ("formulas left alone", text, "_harmless", str, "=1+1", "CSV"),
    ("formulas looked for before blanks are taken off", text, "visible", str, " =1+1", "CSV"),
    ("Markdown not escaped", text, "_markdown", str, "[click](https://evil.example)", "Markdown"),
    ("LaTeX not escaped", text, "_latex", str, "\\input{/etc/passwd}", "LaTeX"),
]
