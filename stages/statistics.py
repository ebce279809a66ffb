"""statistics: intervals of all dev scores, paired differences of all runs, and the spread over seeds."""

from mtbert.pipeline.paths import REPORTS, RESULTS, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.report.measure import measure
from mtbert.report.statistics import STATISTICS, write_statistics


def main() -> None:
    settings = planned("statistics")["settings"]
    path = REPORTS / settings["profile"] / STATISTICS
    confine(RESULTS, path)
    write_statistics(path, measure(RESULTS, settings["runs"], settings["seeds"]))
    print(path)


if __name__ == "__main__":
    start(main)
