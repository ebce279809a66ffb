"""The page in a real browser, Chromium without a window: what it runs, what its filters show, and who can use it."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from mtbert.evaluation.metrics import METRICS
from mtbert.files import atomic_json
from mtbert.report.error_analysis import analyse
from mtbert.report.graph import read_graph
from mtbert.report.page import page
from mtbert.report.runs import Runs
from mtbert.report.statistics import Interval, Statistics
from mtbert.seal import seal
from mtbert.tabular import write_csv
from mtbert.tasks.paper import known_tasks
from tests.report.pages import FINDINGS, PREPARED, ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
QUIET = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

TOPIC = {
    "texts": ["headline"],
    "label": "topic",
    "kind": "classes",
    "classes": ["world", "sports", "<script>alert(1)</script>"],
}
TASKS = known_tasks({"topic": TOPIC})
RUNS = ("first", "second")
ROWS = 80
SENTENCES = ("a film", "one good film", "</script><img src=x onerror=alert(1)>", "a \u202elong and rather slow film")


@pytest.fixture(scope="module")
def examples() -> dict[tuple[str, str], pd.DataFrame]:
    """Random labels and predictions of two runs, by run and task."""
    rng = np.random.default_rng(1)
    found = {}
    for name, task in TASKS.items():
        truth = (
            rng.integers(0, task.high, ROWS, endpoint=True)
            if task.kind != "score"
            else rng.uniform(0, 5, ROWS).round(1)
        )
        texts = {f"sentence{n + 1}": rng.choice(SENTENCES, ROWS) for n in range(len(task.texts))}
        for run in RUNS:
            noise = rng.normal(0, 1, ROWS)
            predicted = (
                (truth + noise).round(4)
                if task.kind == "score"
                else np.where(noise < 0.5, truth, (truth + 1) % (task.high + 1))
            )
            score = (
                predicted if task.kind == "score" else np.where((task.kind == "binary") & (predicted == 0), 0.2, 0.8)
            )
            found[run, name] = pd.DataFrame({**texts, "label": truth, "prediction": predicted, "score": score})
    return found


@pytest.fixture(scope="module")
def address(examples: dict[tuple[str, str], pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of these runs, with a declared task."""
    folder = tmp_path_factory.mktemp("page")
    metrics: dict[str, Any] = {}
    for run in RUNS:
        for name, task in TASKS.items():
            table = examples[run, name].assign(id=[f"id{n}" for n in range(ROWS)])
            for column in ("label", "prediction"):
                if task.kind != "score":
                    table[column] = [task.text_of(value) for value in table[column]]
            write_csv(folder / f"results/{run}/examples/{name}-dev.csv", list(table.columns), table.to_numpy().tolist())
        write_csv(
            folder / f"results/{run}/history.csv", ["epoch", "dev_sst", "dev_topic"], [[0, 0.2, 0.5], [1, 0.4, -0.1]]
        )
        metrics[run] = {
            "dev": {name: {_metric(name): 0.5, "n": ROWS} for name in TASKS},
            "test": {},
            "parameters": {"total": 9, "trainable": 9, "adapters_only": None},
            "training": {"tasks": ["sst"], "steps": 1, "tokens": 1},
        }
        atomic_json(folder / f"results/{run}/metrics.json", metrics[run])
        seal(folder / "results" / run)
    scores = {run: dict.fromkeys(TASKS, Interval(0.5, 0.4, 0.6)) for run in RUNS}
    runs = Runs(folder / "results", metrics, {run: {} for run in RUNS}, {"second": "first"}, {}, Statistics(scores, {}))
    html = page(
        folder,
        runs,
        lead="Two runs.",
        findings=FINDINGS,
        errors=analyse(folder / "results", metrics, TASKS.values()),
        compared=RUNS,
        tables=[],
        figures=[],
        tasks=TASKS,
        prepared=PREPARED,
        graph=read_graph(ROOT / "dvc.yaml"),
        provenance={"Profile": "sample"},
    )
    (folder / "index.html").write_text(html, encoding="utf-8")
    return (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as play, play.chromium.launch(executable_path=CHROMIUM, args=QUIET) as browser:
        yield browser


@pytest.fixture
def shown(chromium: Browser, address: str) -> Iterator[Page]:
    """The page, opened; fails if it logs anything, asks for anything but itself, or opens a dialog."""
    tab = chromium.new_page()
    heard: list[str] = []
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("dialog", lambda dialog: heard.append(dialog.message))
    tab.on("request", lambda request: heard.append(request.url))
    tab.goto(address)
    yield tab
    tab.close()
    assert [text for text in heard if not text.startswith("data:")] == [address]


def _metric(task: str) -> str:
    return "pearson" if TASKS[task].kind == "score" else "accuracy"


def _choose(shown: Page, **filters: str) -> str:
    """Set these controls and return the line that says how many examples are shown, and their scores."""
    for name, value in filters.items():
        control = shown.locator(f"[name={name}]")
        is_select = control.evaluate("element => element.tagName") == "SELECT"
        control.select_option(value) if is_select else control.fill(value)
    return shown.locator("#count").inner_text()


def _expected(task: str, tables: dict[str, pd.DataFrame]) -> str:
    """That line, by Python, for the tables of the examples shown, by run."""
    title = {"accuracy": "accuracy", "pearson": "Pearson’s r"}[_metric(task)]
    scores = [
        f"{run}: {title} {METRICS[_metric(task)](table['label'], table['prediction']):.3f}"
        for run, table in tables.items()
    ]
    return f"{len(next(iter(tables.values())))} of {ROWS} examples · {' · '.join(scores)}"


@pytest.mark.parametrize("task", TASKS)
def test_the_filters_show_what_they_say_and_the_scores_are_pythons(
    shown: Page, examples: dict[tuple[str, str], pd.DataFrame], task: str
) -> None:
    tables = {run: examples[run, task] for run in RUNS}
    one, two = tables.values()

    def expected(kept: pd.Series, *runs: str) -> str:
        return _expected(task, {run: tables[run][kept] for run in runs or RUNS})

    everything = pd.Series(True, index=one.index)
    assert _choose(shown, task=task, run="second") == expected(everything, "second")
    assert _choose(shown, run="first", other="second") == expected(everything)
    scored = TASKS[task].kind == "score"
    apart, error = (
        (first - second).abs()
        for first, second in ((one["prediction"], two["prediction"]), (one["label"], one["prediction"]))
    )
    least = 0.7 if scored else 1e-9
    if scored:
        _choose(shown, margin="0.7")
    else:
        assert _choose(shown, predicted="1") == expected(one["prediction"] == 1)
        assert _choose(shown, predicted="", truth="0") == expected(one["label"] == 0)
        _choose(shown, truth="")
    assert _choose(shown, show="disagree") == expected(apart >= least)
    assert _choose(shown, show="wrong") == expected(error >= least)
    texts = [one[column] for column in ("sentence1", "sentence2") if column in one]
    words = sum(text.str.split().str.len() for text in texts)
    assert _choose(shown, least="5", most="8") == expected((error >= least) & words.between(5, 8))
    found = pd.concat([text.str.contains("slow") for text in texts], axis=1).any(axis=1)
    assert _choose(shown, least="", most="", show="all", contains="SLOW") == expected(found)
    assert _choose(shown, contains="no such words") == f"0 of {ROWS} examples"


def test_rows_are_ordered_and_sentences_stay_text(shown: Page, examples: dict[tuple[str, str], pd.DataFrame]) -> None:
    _choose(shown, task="sts", run="first", order="worst")
    rows = shown.locator("#rows tr")
    assert rows.count() == 25
    shown.get_by_role("button", name="Show more").click()
    assert rows.count() == 50
    errors = (examples["first", "sts"]["label"] - examples["first", "sts"]["prediction"]).abs()
    assert [int(text) for text in rows.locator("th").all_inner_texts()] == (
        errors.sort_values(ascending=False, kind="stable").index[:50] + 1
    ).tolist()
    _choose(shown, contains="onerror")
    expect(rows.first).to_contain_text("</script><img src=x onerror=alert(1)>")
    _choose(shown, task="topic", contains="")
    expect(shown.locator("[name=truth] option").last).to_have_text("<script>alert(1)</script>")


def test_the_errors_of_the_chosen_run_are_shown(shown: Page) -> None:
    panels = shown.locator("#errors .panel:visible h3 small")
    assert panels.all_inner_texts() == ["first"] * len(TASKS)
    shown.locator("#errors-of select").select_option("second")
    assert panels.all_inner_texts() == ["second"] * len(TASKS)


def test_every_scroller_is_reached_by_keyboard_and_named(shown: Page) -> None:
    reached = set()
    for _ in range(400):
        shown.keyboard.press("Tab")
        place = shown.evaluate("[document.activeElement.className, document.activeElement.getAttribute('aria-label')]")
        if place[0] == "scroll":
            reached.add(place[1])
        if shown.evaluate("document.activeElement === document.querySelector('#provenance summary')"):
            break
    scrollers: Locator = shown.locator(".scroll:visible")
    assert reached == set(scrollers.evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))"))
    assert {"Runs", "Predictions", "Data", "Graph", "Declared tasks"} <= reached


def test_it_fits_a_phone_and_its_first_column_stays(chromium: Browser, address: str) -> None:
    tab = chromium.new_page(viewport={"width": 390, "height": 800})
    tab.goto(address)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    scroller = tab.locator("#runs .scroll")
    scroller.evaluate("element => element.scrollLeft = 300")
    edges = [box["x"] for box in (scroller.bounding_box(), scroller.locator("tbody th").first.bounding_box()) if box]
    assert edges[0] == pytest.approx(edges[1], abs=1)
    tab.close()


def test_it_is_readable_without_scripts_and_in_print(chromium: Browser, address: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    expect(tab.locator(".instead")).to_be_visible()
    expect(tab.locator("#browser")).to_be_hidden()
    expect(tab.locator("#errors-of")).to_be_hidden()
    expect(tab.locator("#errors .panel:visible")).to_have_count(len(TASKS) * len(RUNS))
    context.close()
    tab = chromium.new_page()
    tab.goto(address)
    tab.emulate_media(media="print", color_scheme="dark")
    expect(tab.locator("#browser")).to_be_hidden()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.close()
