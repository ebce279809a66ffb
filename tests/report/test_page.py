"""The page: complete, self-contained, and inert whatever the data contain."""

import json
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.report import results as reading
from mtbert.report.figures import FIGURES, render
from mtbert.report.page import first_lines, headline, page
from mtbert.report.statistics import Statistics
from mtbert.report.tables import TABLES
from mtbert.report.text import to_json


class Inventory(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


SPLIT = {
    "present": True,
    "rows_read": 3,
    "rows_kept": 2,
    "bad_rows": {"count": 1, "listed": [{"where": "data/raw/sst-train.csv:2:1", "what": "<b>bad</b> `c` *d*"}]},
    "repeated": {"sentences": 0},
    "wordpieces": {"total": 9},
}
PREPARED = {"tasks": {"sst": {"train": {**SPLIT, "leaked": {"rows": 1}}, "test": {"present": False}}}}
Rows = dict[str, dict[str, str]]


def written(results: Path, statistics: Statistics, folder: Path, rows: Rows) -> dict[str, Any]:
    """Write tables and figures as their stages do; return the arguments of `page`."""
    tables, figures = [name for name in rows if name in TABLES], [name for name in rows if name in FIGURES]
    for name in tables:
        atomic_write_text(folder / f"tables/{name}.json", to_json(TABLES[name](results, rows[name], statistics)))
    for name in figures:
        render(FIGURES[name](results, rows[name], statistics), folder / "figures" / name)
    runs = sorted({run for part in rows.values() for run in part.values()})
    return {
        "lead": "Lead <em>text</em>\u202e.",
        "tables": tables,
        "figures": figures,
        "metrics": {run: reading.metrics(results, run) for run in runs},
        "times": {run: {"seconds": 61.5} for run in runs[1:]},
        "prepared": PREPARED,
        "provenance": {"Data": "sample\x07 <script>"},
    }


@pytest.fixture
def html(results: Path, tmp_path: Path, rows: Rows, statistics: Statistics) -> str:
    return page(tmp_path, **written(results, statistics, tmp_path, rows))


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
    assert "<b>bad</b> `c` *d*" in unescape(html)


def test_it_shows_every_table_figure_and_run(html: str, hostile: list[str]) -> None:
    inventory = Inventory()
    inventory.feed(html)
    for caption in ("Table 1:", "Table 2:", "Table 3:", "Table 4:", "Figure 1:", "Figure 2:", "Figure 3:", "Figure 4:"):
        assert caption in inventory.text
    assert sum(tag == "img" for tag, _ in inventory.tags) == 4
    assert hostile[0] in inventory.text, "hostile text is shown as text"
    assert "Malformed row left out: data/raw/sst-train.csv:2:1: <b>bad</b>" in inventory.text
    assert "sampler_round_robin" in inventory.text
    assert "train_rest: true" in inventory.text and "`params" not in inventory.text


def test_the_papers_columns_stand_under_one_heading(html: str) -> None:
    assert html.count('<th class="group" colspan="5">Paper</th>') == 1
    table = html[html.index("<caption>Table 1") :].split("</thead>")[0]
    assert [row.count("<th") for row in table.split("<tr>")[1:]] == [6, 5]


def test_headline_is_small(results: Path, statistics: Statistics) -> None:
    found = headline({"baseline": json.loads((results / "baseline/metrics.json").read_text())}, statistics)["baseline"]
    assert set(found) == {"overall", "sst", "quora", "sts", "intervals", "trainable_parameters", "steps"}
    assert found["intervals"]["sst"] == [found["sst"] - 0.02, found["sst"] + 0.02]


def test_the_page_shows_what_there_is(results: Path, tmp_path: Path, rows: Rows, statistics: Statistics) -> None:
    few = {"table1": {"baseline": "baseline"}, "figure3": {"r4": "dora_r4"}}
    html = page(tmp_path, **written(results, statistics, tmp_path, few))
    assert "Table 1: " in html and "Figure 3: " in html
    assert "Table 2: " not in html and "Best Performance" not in html.split('id="choices"')[0]
    none = page(
        tmp_path, **(written(results, statistics, tmp_path, {"table1": rows["table1"]}) | {"tables": [], "figures": []})
    )
    assert 'id="tables"' not in none and "#figures" not in none


def test_a_view_that_was_not_made_names_its_stage(
    results: Path, tmp_path: Path, rows: Rows, statistics: Statistics
) -> None:
    arguments = written(results, statistics, tmp_path, {"table1": rows["table1"], "figure1": rows["figure1"]})
    for file, stage in (("figures/figure1.svg", "figure@figure1"), ("tables/table1.json", "table@table1")):
        for content in ("{", "{}", None):
            (tmp_path / file).write_text(content) if content else (tmp_path / file).unlink()
            with pytest.raises(MtbertError, match=f"run `dvc repro .*{stage}`"):
                page(tmp_path, **arguments)


def test_times_that_were_logged_elsewhere(html: str) -> None:
    runs = html[html.index('id="runs"') :]
    assert runs.count("not recorded here") == 1
    assert runs.count("62 s") == 14


def test_the_first_line_says_when_the_data_are_generated() -> None:
    def first(source: str, times: dict[str, Any]) -> str:
        return first_lines({"source": source}, {"source": {"name": "MiniLM"}}, PREPARED, ["a", "b"], times)

    assert first("sample", {}).startswith("Generated data: ")
    assert first("cs224n", {}).startswith("Data: cs224n. 2 runs on 2 sst training examples with MiniLM. ")
    assert "; 2 minutes of training for 1 of them" in first(
        "cs224n", {"a": {"seconds": 120}, "another": {"seconds": 9}}
    )


def test_choices_that_are_stated_nowhere_else(html: str) -> None:
    for phrase in (
        "weights after the last epoch",
        "eps 1e-6 and no weight decay",
        "including [CLS] and [SEP]",
        "2.5 (1 + cos",
    ):
        assert phrase in html
    assert "Mean and max pooling leave the pooler out" in html
