"""The page: complete, self-contained, and inert whatever the data contain."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.report import results as read
from mtbert.report.page import first_lines, headline, page
from mtbert.report.statistics import Statistics
from tests.report.conftest import HOSTILE, ROWS, make_results, make_statistics, seal_and_check
from tests.report.pages import PREPARED, written


class Inventory(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole `results`."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "check_seal", seal_and_check)
        return page(folder, **written(make_results(folder / "results"), make_statistics(), folder, ROWS))


def test_it_loads_nothing_and_runs_nothing(html: str) -> None:
    inventory = Inventory()
    inventory.feed(html)
    names = {tag for tag, _ in inventory.tags}
    assert not names & {"iframe", "object", "embed", "link", "form", "base", "em", "b"}
    for tag, attributes in inventory.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or re.match(r"#|data:image/svg\+xml;base64,|[\w./-]+$", value), (tag, value)
    policies = [
        attributes for tag, attributes in inventory.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert (
        policies
        and "default-src 'none'" in str(policies[0]["content"])
        and "unsafe" not in str(policies[0]["content"])
        and "base-uri 'none'" in str(policies[0]["content"])
    )
    assert [attributes.get("type") for tag, attributes in inventory.tags if tag == "script"] == [
        "application/json",
        None,
    ]


def test_no_mark_or_control_character_of_the_data_is_left(html: str) -> None:
    assert not set(html) & set("\u202e\x07")
    assert "<b>bad</b> `c` *d*" in unescape(html)


def test_it_shows_every_table_figure_and_run(html: str) -> None:
    inventory = Inventory()
    inventory.feed(html)
    for caption in ("Table 1:", "Table 2:", "Table 3:", "Table 4:", "Figure 1:", "Figure 2:", "Figure 3:", "Figure 4:"):
        assert caption in inventory.text
    assert sum(tag == "img" for tag, _ in inventory.tags) == 4
    assert HOSTILE[0] in inventory.text, "hostile text is shown as text"
    assert "data/raw/sst-train.csv:2:1: <b>bad</b>" in inventory.text
    assert "sampler_round_robin" in inventory.text
    assert "train_rest: true" in inventory.text and "`params" not in inventory.text


def test_the_verdicts_come_first_and_say_what_generated_data_mean(html: str) -> None:
    inventory = Inventory()
    inventory.feed(html.split("<body>")[1])
    assert inventory.text.split()[:3] == ["Generated", "sample", "data:"]
    assert html.index('id="verdict"') < html.index('id="tables"') < html.index('id="provenance"')
    verdicts = html[html.index('id="verdict"') : html.index('id="tables"')]
    assert "<strong>1</strong> refuted" in verdicts and "holds" not in verdicts
    assert "−0.012 score<small>−0.020 to −0.001</small>" in verdicts
    assert "&lt;b&gt;significant&lt;/b&gt;" in verdicts and "A misprint." in verdicts


def test_every_csv_is_linked(html: str) -> None:
    views = {f"{kind}s/{kind}{number}.csv" for kind in ("table", "figure") for number in range(1, 5)}
    assert {*views, "results/dora_r4/examples/quora-dev.csv", "plots/dora_r4.csv"} <= set(
        re.findall(r'href="(.*?)"', html)
    )


def test_headline_is_small(results: Path, statistics: Statistics) -> None:
    found = headline({"baseline": json.loads((results / "baseline/metrics.json").read_text())}, statistics)["baseline"]
    assert set(found) == {"overall", "sst", "quora", "sts", "intervals", "trainable_parameters", "steps"}
    assert found["intervals"]["sst"] == [found["sst"] - 0.02, found["sst"] + 0.02]


def test_the_page_shows_what_there_is(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    few = {"table1": {"baseline": "baseline"}, "figure3": {"r4": "dora_r4"}}
    html = page(tmp_path, **written(results, statistics, tmp_path, few))
    assert "Table 1: " in html and "Figure 3: " in html
    assert "Table 2: " not in html and "Best Performance" not in html.split('id="choices"')[0]
    none = page(
        tmp_path, **(written(results, statistics, tmp_path, {"table1": ROWS["table1"]}) | {"tables": [], "figures": []})
    )
    assert 'id="tables"' not in none and "#figures" not in none


def test_a_view_that_was_not_made_names_its_stage(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    arguments = written(results, statistics, tmp_path, {"table1": ROWS["table1"], "figure1": ROWS["figure1"]})
    for file, stage in (("figures/figure1.svg", "figure@figure1"), ("tables/table1.json", "table@table1")):
        for content in ("{", "{}", None):
            (tmp_path / file).write_text(content) if content else (tmp_path / file).unlink()
            with pytest.raises(MtbertError, match=f"run `dvc repro .*{stage}`"):
                page(tmp_path, **arguments)


def test_times_that_were_logged_elsewhere(html: str) -> None:
    runs = html[html.index('id="runs"') :]
    assert runs.count("not recorded here") == 1
    assert runs.count("62 s") == 14


def test_the_first_lines_name_data_encoder_and_time() -> None:
    def first(source: str, times: dict[str, Any]) -> str:
        return first_lines({"source": source}, {"source": {"name": "MiniLM"}}, PREPARED, ["a", "b"], times)

    assert first("sample", {}).startswith("2 runs on ")
    assert first("folder", {}).startswith(
        "The data are files of your own. 2 runs on 2 sst training examples with MiniLM. "
    )
    assert "; 2 minutes of training for 1 of them" in first(
        "cs224n", {"a": {"seconds": 120}, "another": {"seconds": 9}}
    )
