"""The `mtbert` command: every stage of the pipeline by name. No logic, and no import before a command is chosen."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Multitask minBERT with parameter-efficient fine-tuning. `dvc repro` runs these stages in order, and only those "
    "whose inputs changed; each can also be run by itself, from the project's root.",
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="A key under `runs:` in params.yaml, such as key_update_2.")]
Project = Annotated[Path, typer.Option("--project", "-C", help="The project's root, where params.yaml lies.")]
HERE = Path()


@app.command()
def code(project: Project = HERE) -> None:
    """List for each stage the code files that it runs, in build/code, so that an edit re-runs what runs that code."""
    _stage("code", project)


@app.command()
def fetch(project: Project = HERE) -> None:
    """Put the raw CSV files into data/raw: generated, copied or downloaded, as data.source says."""
    _stage("fetch", project)


@app.command()
def encoder(project: Project = HERE) -> None:
    """Translate the pretrained encoder into models/pretrained, checking every tensor."""
    _stage("encoder", project)


@app.command()
def prepare(project: Project = HERE) -> None:
    """Validate, clean and tokenize data/raw into data/prepared; report what was found."""
    _stage("prepare", project)


@app.command()
def convert(run: Run, project: Project = HERE) -> None:
    """Swap the linear layers of RUN's built, loaded model for its adapter (DoRA), and count what trains."""
    _stage("convert", project, run)


@app.command()
def train(run: Run, project: Project = HERE) -> None:
    """Train RUN into models/RUN; goes on from the last checkpoint if an earlier try was killed."""
    _stage("train", project, run)


@app.command()
def evaluate(run: Run, project: Project = HERE) -> None:
    """Score RUN on dev and test; write its metrics, per-example tables and leaderboard files to results/RUN."""
    _stage("evaluate", project, run)


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="NAME", help="table1 to table4.")], project: Project = HERE
) -> None:
    """Write a table of the paper, with our numbers beside, as CSV, Markdown and LaTeX."""
    _stage("table", project, name)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="figure1 to figure4.")], project: Project = HERE
) -> None:
    """Draw a figure of the paper from our results, as PNG and SVG, with its data as CSV."""
    _stage("figure", project, name)


@app.command()
def report(project: Project = HERE) -> None:
    """Gather tables, figures, metrics and provenance on one page."""
    _stage("report", project)


def _stage(name: str, project: Path, *arguments: Any) -> None:
    root = project.resolve()
    if not (root / "params.yaml").is_file():
        typer.echo(f"error: {root}: no params.yaml here; go to the project's root, or name it with --project", err=True)
        raise typer.Exit(2)
    os.chdir(root)
    # The project's own stages, also where the package is installed elsewhere.
    sys.path.insert(0, str(root))
    guarded: Callable[..., int] = importlib.import_module("stages.common").guarded
    raise typer.Exit(guarded(importlib.import_module(f"stages.{name}").main, *arguments))


def main() -> None:
    """Entry point of the `mtbert` script."""
    app()
