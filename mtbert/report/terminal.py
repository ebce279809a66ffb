"""What the commands that read runs' results share: their tables, and their errors about runs."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtbert.errors import MtbertError, nearest
from mtbert.report.text import visible


def check_run(folder: Path, run: str, declared: Collection[str]) -> None:
    """Reject the name of a run that is neither declared nor evaluated.

    Args:
        folder: the results folder.
        declared: the runs of params.yaml.
    """
    evaluated = [path.parent.name for path in sorted(folder.glob("[!.]*/metrics.json"))]
    known = list(dict.fromkeys([*declared, *evaluated]))
    if run not in known:
        raise MtbertError(f"no run is called {run!r}{nearest(run, known)}")


@contextmanager
def declaring(runs: Sequence[str], declared: Collection[str], otherwise: str) -> Iterator[None]:
    """Extend an error whose remedy is a stage's command: a run has no stages until params.yaml declares it.

    Args:
        otherwise: what to do instead of declaring them again.
    """
    try:
        yield
    except MtbertError as error:
        if gone := [run for run in runs if run not in declared]:
            what = f"{' and '.join(gone)} under runs in params.yaml again, or {otherwise}"
            raise MtbertError(f"{error}, after declaring {what}") from None
        raise


def print_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> None:
    """Print rows and an empty line.

    Args:
        numbers: whether all columns but the first are right-aligned.
    """
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)
    console.print()
