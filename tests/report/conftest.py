"""A small, consistent results folder, as the evaluate stage writes it, with hostile questions in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mtbert.files import atomic_json
from mtbert.report import results as read
from mtbert.report.statistics import Interval, Paired, Statistics
from mtbert.seal import check_seal, seal
from mtbert.tabular import write_csv
from mtbert.tasks.paper import METRIC_OF

# As params.yaml names them.
ROWS: dict[str, dict[str, str]] = {
    "table1": {name: name for name in ("baseline", "key_update_1", "key_update_2", "key_update_3", "best_performance")}
    | {"most_efficient": "dora_r16", "test_leaderboard": "best_performance"},
    "table2": {
        "u_v": "concat_u_v",
        "u_v_diff": "key_update_3",
        "sum_diff": "concat_sum_diff",
        "u_v_c": "best_performance",
    },
    "table3": {
        "sequential": "sampler_sequential",
        "round_robin": "sampler_round_robin",
        "proportional": "sampler_proportional",
        "square_root": "best_performance",
        "balanced": "sampler_balanced",
    },
    "figure3": {"r4": "dora_r4", "r8": "dora_r8", "r16": "dora_r16", "r32": "dora_r32", "full": "best_performance"},
    **{name: {"best_performance": "best_performance"} for name in ("table4", "figure1", "figure2", "figure4")},
}
RUNS = sorted({run for rows in ROWS.values() for run in rows.values()})
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><svg onload=alert(1)>",
    "&lt;script&gt;",
    "\"><iframe src='//evil.example'></iframe>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "https://evil.example/",
    "www.evil.example",
    "a | b | c",
    "`code` **bold** _it_ ~~no~~ \\",
    "=1+cmd|'/c calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\\input{/etc/passwd}",
    "\\write18{ls}",
    "100% $x$ #1 a_b {c} ~ ^ & \\",
    "\u202eright to left\u202c",
    "nul\x00bell\x07",
    "two\nlines",
    "{{ 7*7 }} {% for x in y %}",
    "None",
    "NA",
]


def run_metrics(run: str, index: int) -> dict[str, Any]:
    """Scores that differ from run to run in the last digits."""
    sst, quora, sts = 0.4 + index / 100, 0.6 + index / 100, 0.5 + index / 50
    adapter = run.startswith("dora")
    return {
        "run": run,
        "dev": {
            "sst": {"accuracy": sst, "n": 5, "majority": 0.4},
            "quora": {"accuracy": quora, "n": len(HOSTILE), "majority": 0.6},
            "sts": {"pearson": sts, "n": 4},
            "overall": (sst + quora + (1 + sts) / 2) / 3,
        },
        "test": {},
        "parameters": {
            "total": 1000,
            "trainable": 200 + index if adapter else 1000,
            "adapters_only": 10 + index if adapter else None,
        },
        "checkpoint_bytes": 4000 + index,
        "training": {
            "tasks": ["sst", "quora", "sts"],
            "sampler": "square_root",
            "epochs": 2,
            "steps": 1234,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "sizes": {"sst": 8544, "quora": 283003, "sts": 6040},
            "batches": {"sst": 400, "quora": 500, "sts": 334},
            "probabilities": None
            if run in ("sampler_sequential", "sampler_round_robin")
            else {"sst": 0.1316, "quora": 0.7577, "sts": 0.1107},
            "tokens": 99999,
        },
    }


def write_run(folder: Path, settings: Mapping[str, Any] | None = None, **metrics: Any) -> None:
    """Write a run's metrics.json, in which sections that are not given are empty, and record.json if there are settings."""
    atomic_json(folder / "metrics.json", {"dev": {}, "test": {}, "parameters": {}, "training": {}, **metrics})
    if settings is not None:
        record = {"device": "cpu", "precision": "fp32", "threads": 2, "torch": "2.13.0", "settings": settings}
        atomic_json(folder / "record.json", record)


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    """What a JSON file holds; it is written back as the block leaves it."""
    found = json.loads(path.read_text(encoding="utf-8"))
    yield found
    path.write_text(json.dumps(found), encoding="utf-8")


def write_examples(path: Path, rows: list[list[Any]], pair: bool) -> None:
    write_csv(path, ["id", "sentence1", *(["sentence2"] if pair else []), "label", "prediction", "score"], rows)


def seal_and_check(folder: Path, *names: str) -> None:
    """Seal results when they are read, since tests write and change them by hand. tests/test_seal.py tests the seals."""
    if folder.is_dir():
        seal(folder)
        check_seal(folder, *names)


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "check_seal", seal_and_check)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_results(tmp_path / "results")


def make_results(folder: Path) -> Path:
    """Write the results of all runs of ROWS into a folder; return it."""
    settings = {"epoch_end": "depletion", "batch_size": 8, "heads": {"sst": {}, "quora": {}, "sts": {}}}
    for index, run in enumerate(RUNS):
        write_run(folder / run, settings, **run_metrics(run, index))
    best = folder / "best_performance"
    (best / "history.csv").write_text(
        "epoch,step,train_loss,train_sst,dev_sst,dev_quora,dev_sts,dev_overall\n"
        "0,0,,0.2,0.25,0.6,,\n1,617,1.5,0.4,0.35,0.7,0.5,0.6\n2,1234,1.2,0.6,0.45,0.75,0.6,0.65\n",
        encoding="utf-8",
    )
    sst = [
        ["i", "a film", 0, 0, 0.9],
        ["j", "b", 0, 1, 0.5],
        ["k", "c", 4, 4, 0.8],
        ["l", "d", 4, 4, 0.7],
        ["m", "e", 2, 3, 0.6],
    ]
    write_examples(best / "examples/sst-dev.csv", sst, pair=False)
    quora = [
        [f"q{n}", text, text, n % 2, 1 - n % 2, 0.99 - n / 1000 if n % 2 == 0 else 0.01 + n / 1000]
        for n, text in enumerate(HOSTILE)
    ]
    write_examples(best / "examples/quora-dev.csv", quora, pair=True)
    sts = [
        [f"s{n}", "a", "b", label, value, value]
        for n, (label, value) in enumerate([(0, 0.5), (5, 4), (2.5, 2.5), (1, 2)])
    ]
    write_examples(best / "examples/sts-dev.csv", sts, pair=True)
    return folder


@pytest.fixture
def statistics() -> Statistics:
    return make_statistics()


def make_statistics() -> Statistics:
    """Of the scores in `results`, with intervals of ± 0.02; only differences of neighbouring runs are not significant."""
    values = {}
    for index, run in enumerate(RUNS):
        dev = run_metrics(run, index)["dev"]
        scores = {"overall": dev["overall"]} | {name: dev[name][metric] for name, metric in METRIC_OF.items()}
        values[run] = {name: Interval(score, score - 0.02, score + 0.02) for name, score in scores.items()}
    pairs = {}
    for (first, before), (second, after) in combinations(values.items(), 2):
        differences = {name: after[name].value - before[name].value for name in before}
        pairs[first, second] = {
            name: Paired(value, value - 0.01, value + 0.01, 0.0001 if abs(value) > 0.03 else 0.5, 0.005)
            for name, value in differences.items()
        }
    return Statistics(values, pairs)
