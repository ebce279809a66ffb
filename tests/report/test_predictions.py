"""What the page's browser of predictions is given."""

import json
from pathlib import Path

import pytest

from mtbert.report.predictions import read_predictions, to_json
from mtbert.tabular import write_csv
from mtbert.tasks.paper import TASKS, known_tasks

TOPIC = {"texts": ["text"], "label": "topic", "kind": "classes", "classes": ["b", "a"]}
KNOWN = known_tasks({"topic": TOPIC})
HEADER = ["id", "sentence1", "label", "prediction", "score"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run, task, rows in (
        ("one", "sst", [["i", "a film", 4, 4, 0.1234], ["j", "<b>", 0, 1, 0.5]]),
        ("two", "sst", [["i", "a film", 4, 3, 0.9], ["j", "<b>", 0, 0, 0.7]]),
        ("two", "topic", [["k", "news", "a", "b", 0.8]]),
    ):
        write_csv(tmp_path / f"{run}/examples/{task}-dev.csv", HEADER, rows)
    pairs = [["i", "x", "y", 1, 0, 0.2], ["j", "x", "y", 0, 1, 0.75]]
    write_csv(tmp_path / "two/examples/quora-dev.csv", [*HEADER[:2], "sentence2", *HEADER[2:]], pairs)
    scores = [["i", "x", "y", 2.5, 2.12345, 2.12345]]
    write_csv(tmp_path / "two/examples/sts-dev.csv", [*HEADER[:2], "sentence2", *HEADER[2:]], scores)
    return tmp_path


def test_text_is_stored_once_and_predictions_as_numbers(folder: Path) -> None:
    metrics = {"one": {"dev": {"sst": {}}}, "two": {"dev": dict.fromkeys([*KNOWN, "overall"])}}
    found = read_predictions(folder, metrics, KNOWN)
    assert list(found) == [*TASKS, "topic"]
    assert found["sst"] | {"labels": 5} == {
        **{
            "title": "Sentiment",
            "labels": 5,
            "total": 2,
            "rows": [1, 2],
            "texts": [["a film", "<b>"]],
            "truth": [4, 0],
        },
        "runs": {
            "one": {"predicted": [4, 1], "confidence": [123, 500]},
            "two": {"predicted": [3, 0], "confidence": [900, 700]},
        },
    }
    assert found["quora"]["runs"]["two"] == {"predicted": [0, 1], "confidence": [800, 750]}, "of the predicted label"
    assert found["sts"]["runs"]["two"] == {"predicted": [2.1235]} and found["sts"]["labels"] == []
    assert (found["topic"]["truth"], found["topic"]["labels"]) == ([1], ["b", "a"])


def test_json_cannot_end_the_script_element() -> None:
    text = "</script><!-- <script>"
    assert "<" not in to_json([text]) and json.loads(to_json([text])) == [text]


def test_too_many_examples_are_thinned_evenly_and_none_is_invented(tmp_path: Path) -> None:
    rows = [[f"i{n}", f"sentence {n}", n % 5, n % 5, 0.5] for n in range(1000)]
    write_csv(tmp_path / "one/examples/sst-dev.csv", HEADER, rows)
    whole = read_predictions(tmp_path, {"one": {"dev": {"sst": {}}}}, TASKS)["sst"]
    limit = len(to_json(whole)) // 2
    found = read_predictions(tmp_path, {"one": {"dev": {"sst": {}}}}, TASKS, limit)["sst"]
    assert found["total"] == 1000 and found["rows"] == list(range(1, 1001, 3)) and len(to_json(found)) <= limit
    assert found["texts"][0][1] == "sentence 3" and found["truth"][1] == 3
