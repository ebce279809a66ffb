"""report: one page with all tables and figures, the metrics kept in git, and where everything came from."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, atomic_write_text
from mtbert.params import load_params
from mtbert.report.page import headline, page
from mtbert.report.provenance import agreement, by_run, sources
from mtbert.report.results import metrics, record
from stages.common import PREPARED, PRETRAINED, RAW, RESULTS, confine, inside, start
from stages.provenance import LOCK, origin

GRAPH = Path("dvc.yaml")
PACKAGES = ("mtbert", "torch", "tokenizers", "numpy", "dvc")


def main() -> None:
    params = load_params()
    confine(RAW, PREPARED, PRETRAINED, RESULTS)
    folder = inside(params.report.folder, "report.folder")
    runs = handed_runs(list(params.runs))
    found = {run: metrics(RESULTS, run) for run in runs}
    records = {run: record(RESULTS, run) for run in runs}
    source, encoder = _json(RAW / "source.json", "fetch"), _json(PRETRAINED / "config.json", "encoder")
    made = origin("report", params.report.model_dump())
    provenance = {
        **sources(source, encoder),
        **agreement(records),
        "This page": f"{made['code']}, {made['command']}",
        "Requirements": f"{LOCK}, sha256 {made['requirements_sha256']}",
        "Machine": ", ".join(
            sorted({f"{one['machine']}, {one['device']}, {one['threads']} threads" for one in records.values()})
        ),
        "Precision": ", ".join(sorted({one["precision"] for one in records.values()})),
        "Versions": ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        + f", Python {platform.python_version()}",
        "Trained": " to ".join(
            sorted({min(one["finished"] for one in records.values()), max(one["finished"] for one in records.values())})
        ),
    }
    sizes = found["best_performance"]["training"]["sizes"]
    lead = (
        f"{len(found)} runs on {source['source']} data ({', '.join(f'{size:,} {task}' for task, size in sizes.items())} training examples) "
        f"with {encoder['source']['name']}; {sum(one['seconds'] for one in records.values()) / 60:.0f} minutes of training in all. The paper's runs are "
        "BERT-base for 10 epochs on 283,003 Quora pairs: its column stands beside ours for the pattern, not for equality."
    )
    html = page(
        RESULTS,
        folder,
        lead=lead,
        metrics=found,
        records=records,
        prepared=_json(PREPARED / "report.json", "prepare"),
        provenance=provenance,
    )
    atomic_json(folder / "metrics.json", headline(found))
    atomic_json(folder / "provenance.json", {**provenance, "Runs": by_run(records)})
    atomic_write_text(folder / "index.html", html)
    print(f"the report: {(folder / 'index.html').resolve()}")


def handed_runs(configured: list[str]) -> list[str]:
    """The runs whose results dvc.yaml hands to this stage, in the order of params.yaml; says which are left out."""
    deps = YAML(typ="safe").load(GRAPH.read_text(encoding="utf-8"))["stages"]["report"]["deps"]
    given = [run for run in configured if str(RESULTS / run) in deps]
    for run in configured:
        if run not in given:
            print(f"{run} is not on the page: add `- {RESULTS / run}` to the deps of report in {GRAPH}")
    return given


def _json(path: Path, stage: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro {stage}`") from None


if __name__ == "__main__":
    start(main)
