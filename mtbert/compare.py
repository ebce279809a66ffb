"""`mtbert compare`: two runs side by side, from their results and the logs of their training on this machine."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mtbert.errors import MtbertError
from mtbert.pipeline.paths import MODELS, RESULTS
from mtbert.pipeline.provenance import read_log
from mtbert.report import results
from mtbert.report.comparison import Comparison, Flips, compare
from mtbert.report.plain import plain
from mtbert.report.significance import SIGNIFICANT, SMALLEST
from mtbert.report.statistics import RESAMPLES
from mtbert.report.terminal import check_run, declaring, print_table
from mtbert.report.text import number, probability, setting
from mtbert.training.work import work_root

# A fact, its title, the unit to show it in, and the decimals.
FACTS = (
    ("trained_parameters", "Parameters trained", 1, 0),
    ("bytes_on_disk", "Model on disk, MB", 1e6, 1),
    ("seconds", "Training, seconds", 1, 0),
    ("tokens_per_second", "Training, tokens/s", 1, 0),
    ("peak_bytes", "Peak memory, MB", 1e6, 0),  # of the GPU, or without one of the process
)


def main(
    first: str,
    second: str,
    declared: Collection[str],
    *,
    examples: int = 3,
    as_json: bool = False,
    console: Console | None = None,
) -> None:
    """Print the comparison.

    Args:
        declared: the runs of params.yaml; a run that only has results can be compared too.
        examples: how many examples to list, for each task and run, that this run alone gets right.
        as_json: print JSON instead of tables.
        console: where to print the tables.

    Raises:
        MtbertError: a run does not exist or is not evaluated, or the two were evaluated on different examples.
    """
    for run in (first, second):
        check_run(RESULTS, run, declared)
    if first == second:
        raise MtbertError(f"{first!r} is named twice; name two different runs")
    with declaring((first, second), declared, "compare runs that are declared"):
        found = compare(RESULTS, first, second, examples)
    found.facts.update(_facts(first, second))
    if as_json:
        print(json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(found, console or Console())


def _facts(first: str, second: str) -> dict[str, tuple[Any, Any]]:
    """Size, training time and speed of the runs; None where the model or the log is not here."""
    root, both = work_root(Path.cwd()), (first, second)
    logs = [read_log(root, "train", run, results.record(RESULTS, run).get("weights", "")) for run in both]
    sizes = [sum(path.stat().st_size for path in (MODELS / run).rglob("*") if path.is_file()) or None for run in both]
    return {
        "bytes_on_disk": (sizes[0], sizes[1]),
        **{key: (logs[0].get(key), logs[1].get(key)) for key in ("seconds", "tokens_per_second", "peak_bytes")},
    }


def _show(found: Comparison, console: Console) -> None:
    settings = [(key, *map(setting, pair)) for key, pair in found.settings.items()]
    print_table(console, ("Setting", *found.runs), settings or [("none differs", "", "")])
    scores = [
        (name, number(first.value), number(second.value), *_difference(*difference[:4]))
        for name, (first, second, difference, _) in found.scores.items()
    ]
    print_table(console, ("Dev score", *found.runs, "Difference", "95% interval", "p"), scores, numbers=True)
    facts = [
        (title, *("–" if value is None else f"{value / unit:,.{digits}f}" for value in found.facts[key]))
        for key, title, unit, digits in FACTS
    ]
    print_table(console, ("", *found.runs), facts, numbers=True)
    for task, flips in found.flips.items():
        _print_flips(console, found.runs, task, flips)
    sizes = [f"{name} {number(score.detectable)}" for name, score in found.scores.items() if score.detectable]
    shows = f" The {SMALLEST}: {', '.join(sizes)} (at {SIGNIFICANT:.0%}, without correction)." if sizes else ""
    console.print(
        f"Difference: {found.runs[1]} minus {found.runs[0]}, on the same dev examples. The interval covers another choice of "
        f"examples, not another seed ({RESAMPLES:,} bootstrap resamples); p is of McNemar's exact test for accuracies, else of "
        f"the bootstrap, for this comparison alone.{shows}",
        highlight=False,
        markup=False,
    )


def _print_flips(console: Console, runs: tuple[str, str], task: str, flips: Flips) -> None:
    counts = f"{task}: {runs[0]} alone is right on {flips.first:,} examples, {runs[1]} alone on {flips.second:,}"
    console.print(Text(counts))
    if flips.examples:
        rows = [(flip.right, flip.label, *flip.predictions, " | ".join(flip.texts)) for flip in flips.examples]
        print_table(console, ("Right", "Label", *runs, "Text"), rows)


def _difference(value: float | None, low: float | None, high: float | None, p: float | None) -> tuple[str, str, str]:
    if value is None or low is None or high is None or p is None:
        return "–", "–", "–"
    return f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}", probability(p)
