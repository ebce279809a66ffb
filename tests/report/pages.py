"""Pages made from the small results of conftest.py, for tests of the page."""

from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

from mtbert.files import atomic_write_text
from mtbert.report import results as reading
from mtbert.report.error_analysis import analyse
from mtbert.report.figures import FIGURES
from mtbert.report.graph import read_graph
from mtbert.report.runs import Runs
from mtbert.report.statistics import Statistics
from mtbert.report.tables import TABLES
from mtbert.report.text import to_json
from mtbert.tasks.paper import TASKS

ROOT = Path(__file__).parents[2]
SPLIT = {
    "present": True,
    "rows_read": 3,
    "rows_kept": 2,
    "labels": {"0": 0, "1": 0, "2": 1, "3": 0, "4": 1},
    "over_long": {"sequences": 0},
    "bad_rows": {"count": 1, "listed": [{"where": "data/raw/sst-train.csv:2:1", "what": "<b>bad</b> `c` *d*"}]},
    "repeated": {"sentences": 0},
    "wordpieces": {"mean": 4.5, "longest": 6},
}
PREPARED = {
    "settings": {"max_tokens": 64, "on_bad_row": "drop", "leakage": "keep"},
    "tasks": {"sst": {"train": {**SPLIT, "leaked": {"rows": 1, "removed": 0}}, "test": {"present": False}}},
}
CLAIM = {
    **{"section": "6.2", "claim": "the gap is <b>significant</b>", "rule": "The gap is above 0", "note": ""},
    **{"number": -0.0123, "low": -0.02, "high": -0.001, "unit": "score", "verdict": "refuted"},
}
FINDINGS = {
    "generated": True,
    "claims": [CLAIM, CLAIM | {"verdict": "not run", "number": None, "low": None}],
    "errata": ["A misprint."],
}
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:description>{caption}</dc:description></metadata></svg>"""
Rows = dict[str, dict[str, str]]


def written(results: Path, statistics: Statistics, folder: Path, rows: Rows) -> dict[str, Any]:
    """Write the tables as their stage does, empty figures, and examples of every run; return the arguments of `page`."""
    tables, figures = [name for name in rows if name in TABLES], [name for name in rows if name in FIGURES]
    for name in tables:
        atomic_write_text(folder / f"tables/{name}.json", to_json(TABLES[name](results, rows[name], statistics)))
    for name in figures:
        atomic_write_text(folder / f"figures/{name}.svg", PICTURE.format(caption=f"Figure {name[-1]}: a picture."))
    runs = sorted({run for part in rows.values() for run in part.values()})
    for run in runs:
        if not (results / run / "history.csv").exists():
            copytree(results / "best_performance", results / run, dirs_exist_ok=True, ignore=ignore_patterns("*.json"))
    metrics, records = ({run: read(results, run) for run in runs} for read in (reading.metrics, reading.record))
    times = {run: {"seconds": 61.5} for run in runs[1:]}
    return {
        "runs": Runs(results, metrics, records, {"dora_r8": "dora_r4"}, times, statistics),
        "lead": "Lead <em>text</em>\u202e.",
        "tables": tables,
        "figures": figures,
        "findings": FINDINGS,
        "errors": analyse(results, metrics, TASKS.values()),
        "compared": runs,
        "tasks": TASKS,
        "graph": read_graph(ROOT / "dvc.yaml"),
        "prepared": PREPARED,
        "provenance": {"Data": "sample\x07 <script>"},
    }
