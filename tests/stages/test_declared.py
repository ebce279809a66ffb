"""Tasks declared in params.yaml, through every stage: classes by name, binary pairs and scores; and which faults are errors."""

import csv
import io
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from rich.console import Console

import mtbert
from mtbert.data.arrays import load_split
from mtbert.errors import MtbertError
from mtbert.params import Params, load_params
from mtbert.pipeline import cost
from mtbert.report.measure import measure
from mtbert.report.page import headline
from mtbert.report.results import metrics as read_metrics
from mtbert.report.runs import Runs, declared_grid
from mtbert.tasks.paper import known_tasks
from stages import convert, encoder, evaluate, fetch, plan, prepare, train
from tests.stage_fixtures import write_params

TASKS: dict[str, dict[str, Any]] = {
    "topic": {"texts": ["headline"], "label": "topic", "kind": "classes", "classes": ["world news", "sports", "arts"]},
    "same": {"texts": ["one", "two"], "label": "same", "kind": "binary"},
    "close": {"texts": ["one", "two"], "label": "closeness", "kind": "score", "low": -1, "high": 1},
}
HEADS: dict[str, dict[str, Any]] = {
    "topic": {"objective": "cross_entropy", "features": ["u"]},
    "same": {"objective": "bce", "features": ["u", "v", "|u-v|"]},
    "close": {"objective": "mse", "features": ["u", "v"], "clamp": True},
}
ROWS = 12


def labels(name: str) -> list[str]:
    kinds = {"topic": TASKS["topic"]["classes"], "same": ["0", "1"], "close": ["-1", "0.25", "1"]}
    return [kinds[name][row % len(kinds[name])] for row in range(ROWS)]


def write_files(folder: Path) -> None:
    """Commas and quotes in one task, tabs and ids in the next, columns in another order in the last."""
    topics = [["topic", "headline"], *([label, f"rain, {n} days of it"] for n, label in enumerate(labels("topic")))]
    same = [
        ["id", "one", "two", "same"],
        *([f"p{n}", "a cat", "the dog", label] for n, label in enumerate(labels("same"))),
    ]
    close = [
        ["two", "closeness", "more", "one"],
        *(["a", label, "x", f"b {n}"] for n, label in enumerate(labels("close"))),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, delimiter in (("topic", topics, ","), ("same", same, "\t"), ("close", close, ",")):
        for split in ("train", "dev"):
            with (folder / f"{name}-{split}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    # Without labels.
    (folder / "topic-test.csv").write_text("headline\nsnow\nsun\n", encoding="utf-8")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`mine` trains on two of the paper's tasks and three declared ones; `baseline` has no head for the declared ones."""
    folder = tmp_path_factory.mktemp("settings")
    write_params(folder, only=["baseline"])
    tree: dict[str, Any] = json.loads((folder / "params.yaml").read_text(encoding="utf-8"))
    heads = {**HEADS, "quora": {"objective": "bce", "features": ["u", "v"]}}
    tree["runs"]["mine"] = {"from": "baseline", "tasks": ["sst", "quora", *TASKS], "heads": heads}
    return tree | {"tasks": TASKS}


@pytest.fixture
def project(fresh: Path, settings: dict[str, Any]) -> Path:
    """A project with these settings and files."""
    (fresh / "params.yaml").write_text(json.dumps(settings), encoding="utf-8")
    write_files(fresh / "data/course")
    return fresh


def examples(name: str, split: str = "dev") -> list[dict[str, str]]:
    with Path(f"results/mine/examples/{name}-{split}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_declared_tasks_go_through_every_stage(project: Path) -> None:
    for stage in (plan, fetch, encoder, prepare):
        stage.main()
    for run in ("baseline", "mine"):
        convert.main(run)
        train.main(run)
        evaluate.main(run)

    known = load_params().runs["mine"].known
    assert list(known) == ["sst", "quora", "sts", "close", "same", "topic"]
    topic = load_split(Path("data/prepared"), known["topic"], "train")
    assert topic.labels is not None
    assert topic.labels.tolist() == [row % 3 for row in range(ROWS)]
    assert topic.example_table()["label"].tolist() == labels("topic")
    assert topic.example_table()["id"].tolist() == [str(line) for line in range(2, 2 + ROWS)], "known by its line"

    found = read_metrics(Path("results"), "mine")
    assert set(found["training"]["batches"]) == {"sst", "quora", *TASKS}
    rows = examples("topic")
    model = mtbert.load("mine", device="cpu", precision="fp32")
    assert model.tasks["topic"].labels == ("world news", "sports", "arts") and model.tasks["topic"].columns == (
        "headline",
    )
    assert model.tasks["same"].labels == ("0", "1") and (model.tasks["close"].low, model.tasks["close"].high) == (-1, 1)
    predicted = [
        one.label for one in model.predict("topic", [row["sentence1"] for row in rows]) if isinstance(one, mtbert.Label)
    ]
    assert predicted == [row["prediction"] for row in rows]
    assert {row["prediction"] for row in rows} <= set(TASKS["topic"]["classes"])
    assert all(1 / 3 <= float(row["score"]) <= 1 for row in rows)
    right = np.mean([row["prediction"] == row["label"] for row in rows])
    assert found["dev"]["topic"] == {"accuracy": pytest.approx(right), "n": ROWS, "majority": pytest.approx(1 / 3)}
    assert [row["label"] for row in examples("topic", "test")] == ["", ""]
    assert "topic" not in found["test"]
    assert [row["id"] for row in examples("same")] == [f"p{row}" for row in range(ROWS)]
    close = examples("close")
    assert all(-1 <= float(row["prediction"]) <= 1 for row in close)
    r = np.corrcoef([float(row["label"]) for row in close], [float(row["score"]) for row in close])[0, 1]
    assert found["dev"]["close"]["pearson"] == pytest.approx(r, abs=0.02), "the file has six digits"

    scores = json.loads(Path("metrics/mine.json").read_text(encoding="utf-8"))
    assert scores.keys() >= {"topic", "same"}
    paper = ({"sst": found["dev"]["sst"], "quora": found["dev"]["quora"]}, found["dev"]["sts"]["pearson"])
    assert found["dev"]["overall"] == pytest.approx(
        (sum(entry["accuracy"] for entry in paper[0].values()) + (1 + paper[1]) / 2) / 3
    )
    history = Path("plots/mine.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert history[5:] == [f"dev_{name}" for name in (*known, "overall")]

    runs = {run: read_metrics(Path("results"), run) for run in ("baseline", "mine")}
    assert set(runs["baseline"]["dev"]) == {"sst", "quora", "sts", "overall"}
    statistics = measure(Path("results"), list(runs), {})
    shown = Runs(Path("results"), runs, {}, {}, {}, statistics)
    tasks = known_tasks(TASKS)
    grid = declared_grid(shown, tasks)
    assert grid is not None
    cells = {column.name: [cell.text for cell in column.cells] for column in grid.columns}
    assert list(zip(cells["Task"], cells["Run"], cells["Trained on it"], cells["Measure"], strict=True)) == [
        ("close", "mine", "yes", "Pearson’s r"),
        ("same", "mine", "yes", "accuracy"),
        ("topic", "mine", "yes", "accuracy"),
    ]
    assert declared_grid(replace(shown, metrics={"baseline": runs["baseline"]}), tasks) is None
    kept = headline(runs, statistics)["mine"]
    assert kept["topic"] == found["dev"]["topic"]["accuracy"]
    low, high = kept["intervals"]["topic"]
    assert low <= kept["topic"] <= high


def test_the_estimate_counts_them(project: Path) -> None:
    out = io.StringIO()
    cost.main(console=Console(file=out, width=100))
    assert f"{ROWS} topic" in " ".join(out.getvalue().split())
    rows = next(line.split() for line in out.getvalue().splitlines() if line.split()[:1] == ["mine"])
    # An epoch of the sequential sampler: 16 rows of sst and quora each, 12 of each declared task, in batches of 8.
    assert rows[1] == str(2 + 2 + 3 * 2)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        path = project / f"data/course/{name}"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            replaced("topic-dev.csv", "sports,", "sport,"),
            r"data/course/topic-dev\.csv:3:1: topic 'sport' is no class of topic \(valid: world news, sports, arts\); correct",
        ),
        (replaced("same-train.csv", "dog\t1", "dog\t2"), r"data/course/same-train\.csv:3:18: same 2 is out of range"),
        (
            replaced("close-train.csv", "a,1,", "a,1.5,"),
            r"close-train\.csv:4:3: closeness 1\.5 is out of range \(valid: -1 to 1\)",
        ),
        (replaced("close-train.csv", "a,1,", ",1,"), r"close-train\.csv:4:1: empty two"),
        (replaced("topic-dev.csv", '"rain, 0', "rain, 0"), r"topic-dev\.csv:2:17: 3 columns where the header has 2"),
        (replaced("same-dev.csv", "p1\t", "p0\t"), r"same-dev\.csv:3:1: id 'p0' is already on line 2"),
        (
            replaced("topic-dev.csv", "headline", "title"),
            r"topic-dev\.csv:1:12: header: missing column headline; it must name",
        ),
        (replaced("close-dev.csv", "more", "one"), r"close-dev\.csv:1:19: header: column 'one' appears twice"),
        (
            lambda project: (project / "data/course/close-dev.csv").unlink(),
            r"data/course: missing close-dev\.csv; put the files",
        ),
    ],
)
def test_a_fault_in_a_file_is_named_by_the_users_path(
    project: Path, edit: Callable[[Path], None], message: str
) -> None:
    edit(project)
    plan.main()
    encoder.main()
    with pytest.raises(MtbertError, match=message):
        fetch.main()
        prepare.main()


@pytest.mark.parametrize(
    ("place", "values", "message"),
    [
        (["tasks"], {"Topic": TASKS["topic"]}, r"tasks\.Topic: a name is lower-case letters"),
        (["tasks"], {"sst": TASKS["topic"]}, r"tasks\.sst: a name .* is none of overall, paraphrase, quora"),
        (["tasks", "topic"], {"classes": ["a", "b", "a"]}, r"tasks\.topic\.classes: 'a' is listed twice; remove one"),
        (["tasks", "topic"], {"classes": ["a"]}, r"tasks\.topic\.classes: fewer than two classes"),
        (["tasks", "topic"], {"classes": ["a", " b"]}, r"tasks\.topic\.classes\.1: ' b' is empty, or starts"),
        (["tasks", "topic"], {"classes": None}, r"tasks\.topic\.kind: classes needs classes, the names of the classes"),
        (["tasks", "same"], {"low": 0}, r"tasks\.same\.low: kind binary does not use it"),
        (["tasks", "close"], {"high": -1}, r"tasks\.close\.high: must be above low \(-1\)"),
        (["tasks", "close"], {"kind": "number"}, r"tasks\.close\.kind: 'number' is not valid"),
        (["tasks", "close"], {"texts": ["a", "a"]}, r"tasks\.close\.texts\.1: 'a' cannot be the name"),
        (["tasks", "close"], {"labels": "a"}, r"unknown key tasks\.close\.labels; did you mean 'label'\?"),
        (
            ["runs", "mine", "heads"],
            {"topics": HEADS["topic"]},
            r"runs\.mine\.heads\.topics: no task is called 'topics'.*; declare it under tasks, or remove its head",
        ),
        (
            ["runs", "mine", "heads"],
            {"topic": HEADS["same"]},
            r"heads\.topic\.objective: bce does not fit topic.*cross_entropy",
        ),
        (
            ["runs", "mine", "heads", "topic"],
            {"features": ["u", "v"]},
            r"runs\.mine\.heads\.topic\.features: uses u, v, but an example of topic is one sentence; only u can be used",
        ),
        (
            ["runs", "mine", "heads"],
            {"close": {"objective": "cosine_embedding", "margin": 0.0, "threshold": 2.5}},
            r"heads\.close\.threshold: must be above -1 and at most 1",
        ),
        (["runs", "baseline"], {"tasks": ["topic"]}, r"runs\.baseline\.tasks\.0: 'topic' has no head"),
        (["runs", "baseline"], {"declared": {}}, r"unknown key runs\.baseline\.declared"),
        (
            ["runs"],
            {"bare": {"from": "baseline", "heads": {}, "tasks": ["close"]}},
            r"runs\.bare\.tasks\.0: 'close' has no",
        ),
    ],
)
def test_a_fault_in_params_yaml_is_one_clear_line(
    settings: dict[str, Any], place: list[str], values: dict[str, Any], message: str
) -> None:
    tree = node = deepcopy(settings)
    for key in place:
        node = node[key]
    node.update(values)
    with pytest.raises(MtbertError, match=rf"^params\.yaml: .*{message}[^\n]*$"):
        loaded(tree)


def loaded(tree: dict[str, Any]) -> Params:
    """The settings of a file with this content."""
    with patch("mtbert.params.read_yaml", lambda _: tree):  # a YAML parser takes far longer
        return load_params()


def test_a_run_without_the_papers_heads_is_no_row_of_a_table(settings: dict[str, Any]) -> None:
    own = {**settings["runs"]["baseline"], "heads": {"topic": HEADS["topic"]}, "tasks": ["topic"]}
    tree = settings | {"runs": settings["runs"] | {"own": own}}
    assert list(loaded(tree).runs["own"].known) == ["topic"]
    with pytest.raises(MtbertError, match=r"tables\.table1\.own: run own has no head for sst, quora, sts"):
        loaded(tree | {"tables": {"table1": {"own": "own"}}})
