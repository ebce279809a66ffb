"""`mtbert errors`: where one run errs, from its results; the same numbers as on the report's page."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from mtbert.compare import check_run, print_table
from mtbert.errors import MtbertError, nearest
from mtbert.pipeline.paths import RESULTS
from mtbert.report import results
from mtbert.report.error_analysis import analyse, to_plain
from mtbert.report.error_findings import findings, interval
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
        as_json: print JSON instead.
        console: where to print the findings.

    Raises:
        MtbertError: the run does not exist or is not evaluated, or it has no predictions of the task.
    """
    check_run(run, declared)
    metrics = results.metrics(RESULTS, run)
    there = [known for known in known_tasks(tasks).values() if known.name in metrics["dev"]]
    if task is not None and task not in (names := [known.name for known in there]):
        raise MtbertError(f"{run} has no dev predictions of a task {task!r}{nearest(task, names)}")
    found = analyse(RESULTS, {run: metrics}, [known for known in there if task in (None, known.name)])
    sentences = {name: findings(part) for name, part in found.items()}
    if as_json:
        parts = to_plain(found, sentences)
        print(json.dumps({name: part["runs"][run] for name, part in parts.items()}, indent=2, ensure_ascii=False))
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
            print_table(
                console, ("Examples", "Number", "Error", "Difference to the rest", "p, corrected"), rows, numbers=True
            )
