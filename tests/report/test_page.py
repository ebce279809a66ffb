"""The page: complete, self-contained, and inert whatever the data say."""

import json
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mtbert.report import results as reading
from mtbert.report.figures import FIGURES, render
from mtbert.report.page import headline, page


class Inventory(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def html(results: Path, tmp_path: Path) -> str:
    for name, make in FIGURES.items():
        render(make(results), tmp_path / "reports/figures" / name)
    runs = sorted(path.name for path in results.iterdir())
    split = {
        "present": True,
        "rows_read": 3,
        "rows_kept": 2,
        "bad_rows": {"count": 1, "listed": [{"where": "data/raw/sst-train.csv:2:1", "what": "<b>bad</b> `c`"}]},
        "repeated": {"sentences": 0},
        "wordpieces": {"total": 9},
    }
    return page(
        results,
        tmp_path / "reports",
        lead="Lead <em>text</em>\u202e.",
        metrics={run: reading.metrics(results, run) for run in runs},
        records={run: reading.record(results, run) for run in runs},
        prepared={"tasks": {"sst": {"train": {**split, "leaked": {"rows": 1}}, "test": {"present": False}}}},
        provenance={"Data": "sample\x07 <script>"},
    )


def test_it_loads_nothing_and_runs_nothing(html: str) -> None:
    inventory = Inventory()
    inventory.feed(html)
    names = {tag for tag, _ in inventory.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "form", "base", "svg", "em", "b"}
    for tag, attributes in inventory.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/svg+xml;base64,")), (tag, value)
    policies = [
        attributes for tag, attributes in inventory.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies and "default-src 'none'" in str(policies[0]["content"])


def test_no_mark_or_control_character_of_the_data_is_left(html: str) -> None:
    assert not set(html) & set("\u202e\x07")
    assert "<b>bad</b> 'c'" in unescape(html)


def test_it_shows_every_table_figure_and_run(html: str, hostile: list[str]) -> None:
    inventory = Inventory()
    inventory.feed(html)
    for caption in ("Table 1:", "Table 2:", "Table 3:", "Table 4:", "Figure 1:", "Figure 2:", "Figure 3:", "Figure 4:"):
        assert caption in inventory.text
    assert sum(tag == "img" for tag, _ in inventory.tags) == 4
    assert hostile[0] in inventory.text, "hostile text is shown as text"
    assert "Malformed row left out: data/raw/sst-train.csv:2:1: <b>bad</b>" in inventory.text
    assert "sampler_round_robin" in inventory.text
    assert "train_rest: true" in inventory.text and "`" not in inventory.text.replace(hostile[10], "")


def test_the_papers_columns_stand_under_one_heading(html: str) -> None:
    assert html.count('<th class="group" colspan="5">Paper</th>') == 1
    table = html[html.index("<caption>Table 1") :].split("</thead>")[0]
    assert [row.count("<th") for row in table.split("<tr>")[1:]] == [6, 5]


def test_headline_is_small_and_flat(results: Path) -> None:
    found = headline({"baseline": json.loads((results / "baseline/metrics.json").read_text())})
    assert set(found["baseline"]) == {"overall", "sst", "quora", "sts", "trainable_parameters", "steps"}
