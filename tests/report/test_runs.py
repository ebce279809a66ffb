"""The runs on the page: what they change, and their scores on declared tasks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbert.report.results import dotted
from mtbert.report.runs import Runs, changes, declared_grid, runs_grid, seeds_grid
from mtbert.report.statistics import Interval, OverSeeds, Statistics
from mtbert.tasks.paper import TASKS, known_tasks

KNOWN = known_tasks({"topic": {"texts": ["text"], "label": "topic", "kind": "classes", "classes": ["a", "b"]}})
TRAINING = {"tasks": ["sst"], "steps": 1, "tokens": 1234}
BASE = {"sampler": "sequential", "heads": {"sts": {"margin": 0.0, "features": ["u"]}}, "adapter": None}
DELTA = {"sampler": "balanced", "heads": {"sts": {"features": ["u", "v"]}}, "adapter": {"train_rest": True}}


def facts(dev: dict[str, Any]) -> dict[str, Any]:
    return {
        "dev": dev,
        "test": {},
        "training": TRAINING,
        "parameters": {"total": 8, "trainable": 2, "adapters_only": 1},
    }


def runs() -> Runs:
    topic = {"accuracy": 0.7, "n": 9, "majority": 0.5}
    metrics = {"base": facts({"sst": {"accuracy": 0.5, "n": 9}}), "mine": facts({"overall": 0.6, "topic": topic})}
    scores = {"base": {"sst": Interval(0.5, 0.4, 0.6)}, "mine": {"topic": Interval(0.7, 0.6, 0.8)}}
    records = {"base": {"settings": BASE}, "mine": {"settings": DELTA}}
    return Runs(Path(), metrics, records, {"mine": "base"}, {}, Statistics(scores, {}))


def test_changes_are_the_keys_that_differ() -> None:
    assert changes(dotted(DELTA), dotted(BASE)) == [
        "sampler: balanced",
        "heads.sts.features: u, v",
        "adapter.train_rest: true",
        "no heads.sts.margin",
    ]
    assert changes(dotted(BASE), {}) == ["sampler: sequential", "heads.sts.margin: 0.0", "heads.sts.features: u"]


def test_a_run_shows_its_predecessor_its_scores_and_its_size() -> None:
    columns = {column.name: column.cells for column in runs_grid(runs(), KNOWN).columns}
    assert [cell.text for cell in columns["Settings"]] == ["", "base, but"]
    assert [cell.text for cell in columns["Sentiment"]] == ["0.500", "–"], "no head, no score"
    assert columns["topic"][1].below == "0.600\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.800" and columns["topic"][1].best
    assert "Paraphrase" not in columns, "no run has a head for it"
    assert columns["Parameters trained"][0].below == "25.0%; heads and adapter 1"
    assert runs().best == "mine"


def test_the_spread_over_seeds_has_a_row_for_each_first_run() -> None:
    assert seeds_grid(runs(), KNOWN) is None
    over = {
        "overall": OverSeeds(5, 0.6, 0.0125, 0.4),
        "sst": OverSeeds(4, 0.5, 0.01, 0.4),
        "topic": OverSeeds(1, *[None] * 3),
    }
    found = seeds_grid(replace(runs(), statistics=Statistics({}, {}, {"mine": over})), KNOWN)
    assert found and {column.name: (column.cells[0].text, column.cells[0].below) for column in found.columns} == {
        **{"Run": ("mine", ""), "Seeds": ("5", "")},
        **{
            "overall": ("0.600 ± 0.013", "SD 0.007 to 0.036; seed: 40%".replace(" ", "\N{NO-BREAK SPACE}")),
            "Sentiment": ("0.500 ± 0.010", "SD 0.006 to 0.037; seed: –".replace(" ", "\N{NO-BREAK SPACE}")),
            "topic": ("–", ""),
        },
    }


def test_declared_tasks_have_a_table_of_their_own() -> None:
    found = declared_grid(runs(), KNOWN)
    assert found and [column.cells[0].text for column in found.columns] == [
        *("topic", "mine", "no", "accuracy", "0.700", "9", "0.500", "–")
    ]
    assert declared_grid(runs(), TASKS) is None
