"""table NAME: write a table of the paper next to our numbers, or of a study, as CSV, Markdown, LaTeX and JSON."""

from mtbert.pipeline.paths import REPORTS, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.report import adapters, studies, tables
from mtbert.report.measure import current_statistics
from mtbert.report.statistics import STATISTICS
from mtbert.report.text import write_table

TABLES = tables.TABLES | studies.TABLES | adapters.TABLES


def main(name: str) -> None:
    settings = planned("table", name)["settings"]
    report = REPORTS / settings["profile"]
    folder = report / "tables"
    confine(RESULTS, report / STATISTICS, folder)
    statistics = current_statistics(report / STATISTICS, RESULTS, settings["rows"].values())
    write_table(TABLES[name](RESULTS, settings["rows"], statistics), folder / name)
    print(f"{folder / name}.csv, .md, .tex, .json")


if __name__ == "__main__":
    start(main)
