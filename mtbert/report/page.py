"""The report: one self-contained page with verdicts, tables, figures, predictions, runs, data, the graph and provenance."""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mtbert.report import error_panels
from mtbert.report.choices import CHOICES
from mtbert.report.curves import HEIGHT, WIDTH, charts
from mtbert.report.error_analysis import ERRORS, TaskErrors
from mtbert.report.figures import read_caption
from mtbert.report.findings import shown
from mtbert.report.graph import BOX, Node, draw
from mtbert.report.grid import grid
from mtbert.report.health import health_grid, malformed
from mtbert.report.predictions import read_predictions, to_json
from mtbert.report.results import scores
from mtbert.report.rules import VERDICTS
from mtbert.report.runs import Facts, Runs, declared_grid, runs_grid, seeds_grid
from mtbert.report.statistics import Statistics
from mtbert.report.text import prose, read_table, visible
from mtbert.tasks.task import Task

# Full names, because the plan counts files that the code names as the stage's code. page.html.j2 imports the last one.
PARTS = ("page.css", "page.js", "parts.html.j2")


def headline(metrics: Mapping[str, Mapping[str, Any]], statistics: Statistics) -> dict[str, dict[str, Any]]:
    """A few numbers per run, with the ends of the scores' intervals; kept in git as metrics.json."""
    return {
        run: {
            **scores(found["dev"]),
            "intervals": {name: [score.low, score.high] for name, score in statistics.values[run].items()},
            "trainable_parameters": found["parameters"]["trainable"],
            "steps": found["training"]["steps"],
        }
        for run, found in metrics.items()
    }


def first_lines(
    source: Mapping[str, Any],
    encoder: Mapping[str, Any],
    prepared: Mapping[str, Any],
    runs: Sequence[str],
    times: Facts,
) -> str:
    """The page's first paragraph: the data, the encoder, the number of runs and their training time.

    Args:
        source, encoder, prepared: source.json of fetch, config.json of encoder, report.json of prepare.
        runs: the runs on the page.
        times: see `Runs`.
    """
    sizes = ", ".join(f"{splits['train']['rows_kept']:,} {task}" for task, splits in prepared["tasks"].items())
    timed = [times[run]["seconds"] for run in runs if run in times]
    minutes = f"; {sum(timed) / 60:.0f} minutes of training" if timed else ""
    if 0 < len(timed) < len(runs):
        minutes += f" for {len(timed)} of them"
    opening = {"folder": "The data are files of your own. ", "download": "The data are the course's published files. "}
    return (
        f"{opening.get(source['source'], '')}{len(runs)} runs on {sizes} training examples with "
        f"{encoder['source']['name']}{minutes}. The paper's runs "
        "train BERT-base for 10 epochs on 283,003 Quora pairs, so compare patterns, not numbers."
    )


def page(
    folder: Path,
    runs: Runs,
    *,
    lead: str,
    findings: Mapping[str, Any],
    errors: Mapping[str, TaskErrors],
    compared: Sequence[str],
    tables: Sequence[str],
    figures: Sequence[str],
    tasks: Mapping[str, Task],
    prepared: Mapping[str, Any],
    graph: Sequence[Node],
    provenance: Mapping[str, str],
) -> str:
    """The page as HTML. It loads nothing and runs no script but its own; all text is escaped.

    Args:
        folder: holds `tables/NAME.json` and `figures/NAME.svg`.
        lead: the first paragraph, from `first_lines`.
        findings: the verdicts on the paper's claims, from `mtbert.report.findings`.
        errors: the error analysis.
        compared: the runs whose agreement is shown.
        tables, figures: the names of those to show.
        tasks: all tasks, by name.
        prepared: prepare's report.
        graph: the pipeline's stages.
        provenance: rows about data, weights, machine and versions.

    Raises:
        MtbertError: a table, a figure or a run's results are missing or damaged; the message names the stage to run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtbert.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "marked": _marked}
    environment.globals |= {"quantity": _quantity, "files": _files}
    style, script = (files("mtbert.report").joinpath(name).read_text(encoding="utf-8") for name in PARTS[:2])
    predictions = read_predictions(runs.folder, runs.metrics, tasks)
    curves = charts(runs.folder, list(runs.metrics), tasks)
    verdicts = Counter(claim["verdict"] for claim in findings["claims"])
    return environment.get_template("page.html.j2").render(
        lead=lead,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
        findings=findings,
        counts=[(verdict, verdicts[verdict]) for verdict in VERDICTS if verdict in verdicts],
        tables=[(name, grid(read_table(folder / "tables" / f"{name}.json"))) for name in tables],
        figures=[_figure(name, folder / "figures" / f"{name}.svg") for name in figures],
        declared=declared_grid(runs, tasks),
        runs=runs_grid(runs, tasks),
        seeds=seeds_grid(runs, tasks),
        charts=curves,
        chart_size=(WIDTH, HEIGHT),
        legend=sorted(
            {line.look: line for chart in curves for line in chart.lines}.values(), key=lambda line: line.look
        ),
        panels=error_panels.panels(errors, {name: (task.low, task.high) for name, task in tasks.items()}),
        panel_size=error_panels.SIZE,
        agreement=error_panels.agreement(errors, compared),
        contradicted=error_panels.contradicted(errors),
        predictions=predictions,
        best=runs.best,
        data=markupsafe.Markup(to_json(predictions)),
        health=health_grid(prepared, tasks),
        malformed=malformed(prepared),
        graph=graph,
        picture=draw(graph),
        box=BOX,
        choices=CHOICES,
        linked=_linked(folder, runs),
        provenance=provenance,
    )


def _linked(folder: Path, runs: Runs) -> list[tuple[str, list[tuple[str, str]]]]:
    """The files of all runs together and of each: (name, links as (text, path from the page))."""
    found = [("all runs", [(name, name) for name in ("metrics.json", "statistics.json", ERRORS, "provenance.json")])]
    for run in runs.metrics:
        examples = sorted((runs.folder / run / "examples").glob("*.csv"))
        paths = {"learning curve": runs.folder.parent / f"plots/{run}.csv"} | {path.stem: path for path in examples}
        found.append((run, [(name, Path(os.path.relpath(path, folder)).as_posix()) for name, path in paths.items()]))
    return found


def _files(stem: str, endings: Sequence[str]) -> markupsafe.Markup:
    """Links to the files of a table or figure, which differ in their endings."""
    link = markupsafe.Markup('<a href="{0}.{1}">.{1}</a>')
    return markupsafe.Markup(", ").join(link.format(stem, ending) for ending in endings)


def _quantity(value: float | None, unit: str = "") -> str:
    """A number of a claim with its unit."""
    return shown(value) if value is None else f"{shown(value)} {unit}".strip()


def _hash(text: str) -> str:
    """The source expression that allows an inline element of this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _figure(name: str, path: Path) -> tuple[str, str, str]:
    """Name, caption, and the picture as a data: URI."""
    return name, read_caption(path), "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _marked(text: str) -> markupsafe.Markup:
    """Our own prose as HTML, with its `code` and *math* marked up."""

    def element(name: str) -> Callable[[str], str]:
        return lambda part: markupsafe.Markup(f"<{name}>{{}}</{name}>").format(visible(part))

    return markupsafe.Markup(prose(text, markupsafe.escape, element("code"), element("var")))
