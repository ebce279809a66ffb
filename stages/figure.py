"""figure NAME: draw a figure of the paper or of a study from our results, as PNG and SVG, and write its data as CSV."""

from mtbert.pipeline.paths import REPORTS, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.report import adapters, conflicts, figures, samplers
from mtbert.report.figures import render
from mtbert.report.measure import current_statistics
from mtbert.report.statistics import STATISTICS

FIGURES = figures.FIGURES | samplers.FIGURES | adapters.FIGURES | conflicts.FIGURES


def main(name: str) -> None:
    settings = planned("figure", name)["settings"]
    report = REPORTS / settings["profile"]
    stem = report / "figures" / name
    confine(RESULTS, report / STATISTICS, stem.parent)
    statistics = current_statistics(report / STATISTICS, RESULTS, settings["rows"].values())
    render(FIGURES[name](RESULTS, settings["rows"], statistics), stem)
    print(f"{stem}.png, .svg, .csv")


if __name__ == "__main__":
    start(main)
