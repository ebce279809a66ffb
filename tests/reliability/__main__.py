"""`python -m tests.reliability [FILE ...] [--quick] [--seed N] [--jobs N]`: run the trials, print one table, write docs/reliability.md and reports/reliability.json

Without names it runs all figures and writes the reports; with names it only prints. The exit status is 1 if any figure
falls short.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from mtbert.files import atomic_write_text
from mtbert.pipeline.provenance import commit
from mtbert.report.text import Table, to_markdown
from mtbert.training.compute import machine
from tests.reliability.files import FILES, run
from tests.reliability.trial import Tally

SEED = 11711
ABOUT = (
    "What `make reliability` tries. Each row is one kind of trial; planted bugs are faults put into the code, which the trials have to "
    "notice. Files have the names of the commit in the last line."
)


def where() -> dict[str, str]:
    """Machine, commit and date."""
    return {"machine": machine(), "code": commit(), "date": datetime.now(UTC).date().isoformat()}


def table(tallies: Sequence[Tally], tier: str, place: dict[str, str]) -> Table:
    """One row per figure."""
    rows = [
        (
            str(tally.figure),
            tally.title,
            f"{tally.trials:,}",
            f"{tally.passed:,}",
            tally.target,
            f"{tally.caught} of {tally.controls}",
            f"{tally.seconds:,.0f} s",
            "yes" if tally.ok else "NO",
        )
        for tally in tallies
    ]
    header = ("#", "What is tried", "Trials", "Passed", "Target", "Planted bugs caught", "Time", "Met")
    notes = [f"Row {tally.figure}: {tally.note}." for tally in tallies if tally.note]
    notes.append(f"`make reliability`: {tier} tier, seed {tallies[0].seed}; {', '.join(place.values())}.")
    return Table("Trials of reliability.", header, rows, notes, (True, False, True, True, False, True, True, False))


def show(tally: Tally) -> None:
    """Print one line on a figure, and its failures."""
    counts = f"{tally.passed:,} of {tally.trials:,} passed, {tally.caught} of {tally.controls} planted bugs caught"
    print(f"figure {tally.figure} ({tally.title}): {counts}; seed {tally.seed}, {tally.seconds} s", flush=True)
    for failure in tally.failures:
        print(f"    {failure}", flush=True)


def main() -> int:
    """Run the figures that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*FILES, []], metavar="FILE", help=", ".join(FILES))
    parser.add_argument("--quick", action="store_true", help="small numbers of trials, as in the tests")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1, help="number of files to run at once, each in its own process")
    arguments = parser.parse_args()
    tallies: list[Tally] = []
    names = arguments.names or FILES
    # A process for each file, since trials patch, fork and limit their own process.
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(run, name, arguments.quick, arguments.seed) for name in names]):
            for tally in done.result():
                tallies.append(tally)
                show(tally)
    tallies.sort(key=lambda tally: tally.figure)
    tier = "quick" if arguments.quick else "full"
    text = to_markdown(table(tallies, tier, where()))
    print(f"\n{text}")
    if not arguments.names:
        summary = {"tier": tier, "seed": arguments.seed, **where()}
        figures = [{**asdict(tally), "ok": tally.ok} for tally in tallies]
        report = json.dumps({**summary, "figures": figures}, indent=2, ensure_ascii=False, allow_nan=False)
        atomic_write_text(Path("reports/reliability.json"), report + "\n")
        atomic_write_text(Path("docs/reliability.md"), f"# Reliability\n\n{ABOUT}\n\n{text}")
    return 0 if all(tally.ok for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
