"""report: write the page, the verdicts on the paper's claims, the error analysis, and the metrics that are kept in git."""

import json
from pathlib import Path
from typing import Any

from mtbert.files import atomic_json, atomic_write_text
from mtbert.pipeline.models import trained_with_bert_base
from mtbert.pipeline.paths import PREPARED, PRETRAINED, RAW, REPORTS, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import commit, read_logs, versions
from mtbert.pipeline.start import start
from mtbert.report import error_findings
from mtbert.report.error_analysis import ERRORS, analyse, to_json, to_plain
from mtbert.report.evidence import Evidence
from mtbert.report.findings import FINDINGS, findings, markdown
from mtbert.report.graph import read_graph
from mtbert.report.measure import current_statistics
from mtbert.report.page import first_lines, headline, page
from mtbert.report.provenance import agreement, by_run, sources
from mtbert.report.reading import reading
from mtbert.report.results import metrics, record
from mtbert.report.runs import Runs
from mtbert.report.statistics import STATISTICS
from mtbert.seal import check_seal
from mtbert.tasks.paper import known_tasks
from mtbert.training.work import work_root


def main() -> None:
    settings = planned("report")["settings"]
    folder = REPORTS / settings["profile"]
    confine(RAW, PREPARED, PRETRAINED, RESULTS, folder)
    found = {run: metrics(RESULTS, run) for run in settings["runs"]}
    records = {run: record(RESULTS, run) for run in settings["runs"]}
    times = read_logs(work_root(Path.cwd()), records)
    source, encoder = _json(RAW / "source.json", "fetch"), _json(PRETRAINED / "config.json", "encoder")
    check_seal(PREPARED, "report.json")
    prepared = _json(PREPARED / "report.json", "prepare")
    provenance = {
        "Profile": settings["profile"],
        **sources(source, encoder),
        **agreement(records, times),
        "This page": f"{commit()}, python -m stages.report",
        "Versions": versions(),
    }
    statistics = current_statistics(folder / STATISTICS, RESULTS, settings["runs"])
    evidence = Evidence(RESULTS, statistics, trained_with_bert_base)
    generated = source["source"] == "sample"
    verdicts = findings(evidence, settings["profile"], generated=generated, seeds=settings["seeds"])
    tasks = known_tasks(settings["tasks"])
    errors = analyse(RESULTS, found, tasks.values())
    # DVC allows no dependency on dvc.yaml, so an edit of that file alone does not re-run this stage.
    graph = read_graph(Path("dvc.yaml"))
    html = page(
        folder,
        Runs(RESULTS, found, records, settings["predecessors"], times, statistics),
        lead=first_lines(source, encoder, prepared, settings["runs"], times),
        findings=verdicts,
        errors=errors,
        compared=_compared(settings),
        tables=list(settings["tables"]),
        figures=list(settings["figures"]),
        tasks=tasks,
        prepared=prepared,
        graph=graph,
        provenance=provenance,
    )
    atomic_json(folder / FINDINGS, verdicts)
    atomic_write_text(folder / "findings.md", markdown(verdicts))
    sentences = {name: error_findings.findings(task) for name, task in errors.items()}
    atomic_write_text(folder / ERRORS, to_json(to_plain(errors, sentences)))
    atomic_json(folder / "metrics.json", headline(found, statistics))
    atomic_json(folder / "provenance.json", {**provenance, "Runs": by_run(records, times)})
    atomic_write_text(folder / "index.html", html)
    print(f"the report: {(folder / 'index.html').resolve()}")


def _compared(settings: Any) -> list[str]:
    """The runs whose agreement the page shows: those of Table 1, or all, and those that differ in their seed alone."""
    rows = settings["tables"].get("table1", {}).values() or settings["runs"]
    return list(
        dict.fromkeys([*rows, *(run for first, others in settings["seeds"].items() for run in (first, *others))])
    )


def _json(path: Path, stage: str) -> Any:
    with reading(path, stage):
        return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    start(main)
