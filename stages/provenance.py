"""provenance: of a study's runs, where, when and from which commit each was trained, and a table of their steps, tokens and seconds.

Run in the study's folder. Like the project's page, its outputs hold what this machine has logged.
"""

from pathlib import Path

from mtbert.files import atomic_json
from mtbert.pipeline.paths import REPORTS, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import commit, read_logs, versions
from mtbert.pipeline.start import start
from mtbert.report.provenance import agreement, by_run
from mtbert.report.results import record
from mtbert.report.studies import training
from mtbert.report.text import write_table
from mtbert.training.work import work_root


def main() -> None:
    settings = planned("provenance")["settings"]
    folder = REPORTS / settings["profile"]
    confine(RESULTS, folder)
    records = {run: record(RESULTS, run) for run in settings["titles"]}
    times = read_logs(work_root(Path.cwd()), records)
    provenance = {
        "Profile": settings["profile"],
        **agreement(records, times),
        "This file": f"{commit()}, python -m stages.provenance",
        "Versions": versions(),
        "Runs": by_run(records, times),
    }
    atomic_json(folder / "provenance.json", provenance)
    write_table(training(RESULTS, settings["titles"], times), folder / "tables/training")
    print(folder / "provenance.json")


if __name__ == "__main__":
    start(main)
