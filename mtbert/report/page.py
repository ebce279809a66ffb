"""One self-contained page: all tables and figures, what was chosen, the data, the runs and where everything came from."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mtbert.report.figures import FIGURES
from mtbert.report.tables import TABLES, TASK_METRICS
from mtbert.report.text import Table, number, visible

CHOICES = (
    "The cosine baseline calls a pair a duplicate when cos(u, v) > 0. Cosines of [CLS] embeddings are nearly always positive, so "
    "it calls almost every pair a duplicate: compare its paraphrase accuracy with the majority-class line.",
    "From Key Update 1 on the paraphrase task has a linear head over (u, v, |u−v|); Best Performance uses (u, v, c) for both pair "
    "tasks. The paper names the concatenations for STS only.",
    "[CLS] pooling passes BERT's pooler, tanh(W h + b), as in the course's framework.",
    "Batch size, dropout, margin, the threshold that maps similarities to ±1, DoRA's alpha and learning rate, and the seed are not "
    "stated; `params.yaml` holds our choice of each beside its comment.",
    "DoRA starts from the pretrained weights. It replaces every linear layer of the encoder; embeddings, norms, biases and "
    "heads still train (`train_rest: true`), the reading that fits the paper's 'around 20%' of trainable parameters.",
    "Each row is one seed, and the development sets are small: the standard error of an accuracy a on n examples is "
    "√(a(1−a)/n), 1.5 percentage points for 0.4 on 1,101 sentences.",
)


def headline(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """The few figures per run that `dvc metrics diff` compares; kept in git as metrics.json."""
    return {
        run: {
            "overall": found["dev"].get("overall"),
            **{task: found["dev"][task][key] for task, key in TASK_METRICS},
            "trainable_parameters": found["parameters"]["trainable"],
            "steps": found["training"]["steps"],
        }
        for run, found in metrics.items()
    }


def runs_table(metrics: Mapping[str, Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every run: its score, budget, size and time."""
    rows = []
    for run, found in metrics.items():
        training, parameters, record = found["training"], found["parameters"], records[run]
        rows.append(
            (
                run,
                number(found["dev"].get("overall")),
                str(training["sampler"]),
                f"{training['epochs']}",
                f"{training['steps']:,}",
                f"{training['batch_size']}",
                f"{training['learning_rate']:g}",
                f"{training['tokens']:,}",
                f"{parameters['trainable']:,} ({parameters['trainable'] / parameters['total']:.1%})",
                "–" if parameters["adapters_only"] is None else f"{parameters['adapters_only']:,}",
                f"{record['seconds']:,.0f} s",
            )
        )
    columns = (
        "Run|Overall|Sampler|Epochs|Steps|Batch|Learning rate|Tokens|Trainable|Heads and adapters alone|Training time"
    )
    notes = [
        "Training time holds the dev metrics after each epoch; of a run that was killed and resumed, what was lost between its last "
        "checkpoint and the kill is not counted."
    ]
    return Table("", tuple(columns.split("|")), rows, notes, (False, True, False, *[True] * 8))


def data_table(report: Mapping[str, Any]) -> Table:
    """What prepare found in each split."""
    rows = []
    for task, splits in report["tasks"].items():
        for split, found in splits.items():
            if not found["present"]:
                rows.append((task, split, *["–"] * 6))
                continue
            leaked = found.get("leaked")
            rows.append(
                (
                    task,
                    split,
                    f"{found['rows_read']:,}",
                    f"{found['rows_kept']:,}",
                    f"{found['bad_rows']['count']:,}",
                    f"{found['repeated']['sentences']:,}",
                    "–" if leaked is None else f"{leaked['rows']:,}",
                    f"{found['wordpieces']['total']:,}",
                )
            )
    header = ("Task", "Split", "Rows", "Kept", "Malformed", "Repeated", "Also in dev or test", "Wordpieces")
    listed = [
        bad
        for splits in report["tasks"].values()
        for found in splits.values()
        if found["present"]
        for bad in _bad(found)
    ]
    return Table("", header, rows, listed[:20], (False, False, *[True] * 6))


def page(
    results: Path,
    report: Path,
    *,
    lead: str,
    metrics: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
    prepared: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> str:
    """The page as HTML: no script, nothing loaded from elsewhere, every text escaped.

    Args:
        results: folder of the evaluate stage's outputs.
        report: folder in which `figures/NAME.svg` lie.
        lead: one paragraph saying what was run.
        metrics, records: by run, what evaluate and train wrote.
        prepared: prepare's report.
        provenance: facts about data, weights, machine and versions.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtbert.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"visible": visible, "marked": _marked}
    return environment.get_template("page.html.j2").render(
        lead=lead,
        tables=[(name, make(results)) for name, make in TABLES.items()],
        figures=[
            (name, make(results).caption, _embedded(report / "figures" / f"{name}.svg"))
            for name, make in FIGURES.items()
        ],
        choices=CHOICES,
        data=data_table(prepared),
        runs=runs_table(metrics, records),
        provenance=provenance,
    )


def _embedded(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _bad(found: Mapping[str, Any]) -> Sequence[str]:
    # The fault quotes the row: its backticks are not ours.
    told = (f"Malformed row left out: {row['where']}: {row['what']}" for row in found["bad_rows"]["listed"])
    return [line.replace("`", "'") for line in told]


def _marked(text: str) -> markupsafe.Markup:
    """Running text as HTML, in which what stands between backticks is code."""
    parts = (markupsafe.escape(visible(part) if index % 2 else part) for index, part in enumerate(text.split("`")))
    return markupsafe.Markup("").join(
        markupsafe.Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
