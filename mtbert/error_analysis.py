"""`mtbert errors`: where one run errs, from its results; the same numbers as on the report's page."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from mtbert.errors import MtbertError, nearest
from mtbert.pipeline.paths import RESULTS
from mtbert.report import results
from mtbert.report.error_analysis import analyse, to_json, to_plain
from mtbert.report.error_findings import findings, interval
from mtbert.report.statistics import OVERALL
from mtbert.report.terminal import check_run, declaring, print_table
from mtbert.report.text import probability
from mtbert.tasks.paper import known_tasks


def main(
    run: str,
    declared: Collection[str],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    task: str | None = None,
    as_json: bool = False,
    console: Console | None = None,
) -> None:
    """Print findings and slices of a run.

    Args:
        declared: the runs of params.yaml; a run that only has results can be analysed too.
        tasks: those that params.yaml declares.
        task: the name of the only one to show.
        as_json: print JSON instead, in the form of errors.json.
        console: where to print the findings.

    Raises:
        MtbertError: the run does not exist or is not evaluated, it has no predictions of the task, or none of a declared task.
    """
    check_run(RESULTS, run, declared)
    with declaring([run], declared, "name a run that is declared"):
        metrics = results.metrics(RESULTS, run)
    known = known_tasks(tasks)
    names = [name for name in known if name in metrics["dev"]]
    gone = [name for name in metrics["dev"] if name not in known and name != OVERALL]
    undeclared = f"params.yaml: tasks does not declare {', '.join(gone)}, of which {run} has results"
    if task in gone or (gone and not names):
        raise MtbertError(f"{undeclared}; declare it there again")
    if task is not None and task not in names:
        raise MtbertError(f"{run} has no dev predictions of a task {task!r}{nearest(task, names)}")
    if gone and task is None:
        print(f"warning: {undeclared}; left out", file=sys.stderr)
    with declaring([run], declared, "name a run that is declared"):
        found = analyse(RESULTS, {run: metrics}, [known[name] for name in names if task in (None, name)])
    sentences = {name: findings(part) for name, part in found.items()}
    if as_json:
        print(to_json(to_plain(found, sentences)), end="")
        return
    console = console or Console()
    for name, part in found.items():
        console.print(Text(f"{name} ({part.examples:,} dev examples)", style="bold"))
        for sentence in sentences[name][run]:
            console.print(Text(sentence))
        rows = [
            (one.name, f"{one.examples:,}", interval(one.error), interval(one.difference), probability(one.adjusted))
            for one in part.runs[run].slices
        ]
        console.print()
        if rows:
            header = ("Examples", "Number", "Error", "Difference to the rest", "p, corrected")
            print_table(console, header, rows, numbers=True)
