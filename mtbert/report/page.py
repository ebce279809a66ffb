"""The report: one self-contained page with tables, figures, the choices we made, data, runs and provenance."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mtbert.report.figures import read_caption
from mtbert.report.provenance import UNTIMED
from mtbert.report.statistics import Statistics
from mtbert.report.text import Table, number, prose, read_table, visible
from mtbert.tasks.paper import METRIC_OF

Times = Mapping[str, Mapping[str, Any]]
METRIC_TITLES = {"accuracy": "Accuracy", "pearson": "Correlation r"}
CHOICES = (
    "The cosine baseline calls a pair a duplicate when cos(u, v) > 0. Cosines of [CLS] embeddings are nearly always positive, so "
    "it calls almost every pair a duplicate: compare its paraphrase accuracy with the majority-class row.",
    "Where a pair's similarity is a cosine, the STS prediction is 2.5 (1 + cos(u, v)): -1 maps to 0 and 1 to 5. The "
    "correlation does not depend on this map.",
    "From Key Update 1 on the paraphrase task has a linear head over (u, v, |u−v|); Best Performance uses (u, v, c) for both pair "
    "tasks. The paper gives the concatenations for STS only.",
    "[CLS] pooling goes through BERT's pooler, tanh(W h + b), as in the course's framework. Mean and max pooling leave the "
    "pooler out: it is not trained, gets no adapter and is not counted as trainable.",
    "Mean and max pooling run over all tokens of a sequence, including [CLS] and [SEP].",
    "The weights after the last epoch are evaluated. There is no early stopping and no choice of epoch by dev score.",
    "AdamW has beta 0.9 and 0.999, eps 1e-6 and no weight decay, the defaults of the course's framework; the learning rate is "
    "constant.",
    "The paper does not state batch size, dropout, margin, the threshold that maps similarities to ±1, DoRA's alpha and learning "
    "rate, or the seed; `params.yaml` has our choices, with comments.",
    "DoRA starts from the pretrained weights. It replaces every linear layer of the encoder; embeddings, norms, biases and "
    "heads still train (`train_rest: true`), which matches the paper's 'around 20%' of trainable parameters.",
    "Each row is one seed and the development sets are small: the standard error of an accuracy a on n examples is "
    "√(a(1−a)/n), 1.5 percentage points for 0.4 on 1,101 sentences.",
)


def headline(metrics: Mapping[str, Mapping[str, Any]], statistics: Statistics) -> dict[str, dict[str, Any]]:
    """A few numbers per run, with the ends of the scores' intervals; kept in git as metrics.json."""
    return {
        run: {
            "overall": found["dev"].get("overall"),
            **{task: _metric(entry)[1] for task, entry in found["dev"].items() if task != "overall"},
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
    times: Times,
) -> str:
    """The page's first paragraph: the data, the encoder, the number of runs and their training time.

    Args:
        source, encoder, prepared: source.json of fetch, config.json of encoder, report.json of prepare.
        runs: the runs on the page.
        times: see `page`.
    """
    sizes = ", ".join(f"{splits['train']['rows_kept']:,} {task}" for task, splits in prepared["tasks"].items())
    timed = [times[run]["seconds"] for run in runs if run in times]
    minutes = f"; {sum(timed) / 60:.0f} minutes of training for {len(timed)} of them" if timed else ""
    if source["source"] == "sample":
        opening = "Generated data: rules make the sentences, so the scores say nothing about real text."
    else:
        opening = f"Data: {source['source']}."
    return (
        f"{opening} {len(runs)} runs on {sizes} training examples with {encoder['source']['name']}{minutes}. The paper's runs "
        "train BERT-base for 10 epochs on 283,003 Quora pairs, so compare patterns, not numbers."
    )


def runs_table(metrics: Mapping[str, Mapping[str, Any]], times: Times) -> Table:
    """Score, budget, size and training time of every run."""
    rows = []
    for run, found in metrics.items():
        training, parameters = found["training"], found["parameters"]
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
                f"{times[run]['seconds']:,.0f} s" if run in times else UNTIMED,
            )
        )
    columns = (
        "Run|Overall|Sampler|Epochs|Steps|Batch|Learning rate|Tokens|Trainable|Heads and adapters alone|Training time"
    )
    notes = [
        "Training time includes the dev metrics after each epoch. If a run was killed and resumed, the time from its last "
        "checkpoint to the kill is not counted. The time is recorded only on the machine that trained the run."
    ]
    return Table("", tuple(columns.split("|")), rows, notes, (False, True, False, *[True] * 8))


def declared_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The runs' scores on the tasks declared in params.yaml; None if there are none."""
    rows = []
    for run, found in metrics.items():
        for task, entry in found["dev"].items():
            if task in (*METRIC_OF, "overall"):
                continue
            metric, dev = _metric(entry)
            trained = "yes" if task in found["training"]["tasks"] else "no"
            test = _metric(found["test"][task])[1] if task in found["test"] else None
            majority = number(entry.get("majority"))
            rows.append(
                (task, run, trained, METRIC_TITLES[metric], number(dev), f"{entry['n']:,}", majority, number(test))
            )
    if not rows:
        return None
    header = ("Task", "Run", "Trained on it", "Measure", "Dev", "Examples", "Majority class", "Test")
    return Table("", header, sorted(rows), [], (False, False, False, False, True, True, True, True))


def _metric(entry: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name and value of a task's metric in metrics.json."""
    return next((name, entry[name]) for name in METRIC_TITLES if name in entry)


def data_table(report: Mapping[str, Any]) -> Table:
    """Row counts of each split, from prepare's report."""
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
    folder: Path,
    *,
    lead: str,
    tables: Sequence[str],
    figures: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    times: Times,
    prepared: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> str:
    """The page as HTML. It has no script and loads nothing; all text is escaped.

    Args:
        folder: holds `tables/NAME.json` and `figures/NAME.svg`.
        lead: the first paragraph, from `first_lines`.
        tables, figures: the names of those to show.
        metrics: metrics.json of each run.
        times: by run, what training logged on this machine (seconds, commit, machine, finished); a run may be missing.
        prepared: prepare's report.
        provenance: rows about data, weights, machine and versions.

    Raises:
        MtbertError: a table or figure is missing or damaged; the message names the stage to run.
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
        tables=[(name, read_table(folder / "tables" / f"{name}.json")) for name in tables],
        figures=[_figure(name, folder / "figures" / f"{name}.svg") for name in figures],
        declared=declared_table(metrics),
        choices=CHOICES,
        data=data_table(prepared),
        runs=runs_table(metrics, times),
        provenance=provenance,
    )


def _figure(name: str, path: Path) -> tuple[str, str, str]:
    """Name, caption, and the picture as a data: URI."""
    return name, read_caption(path), "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _bad(found: Mapping[str, Any]) -> Sequence[str]:
    return [f"Malformed row left out: {row['where']}: {row['what']}" for row in found["bad_rows"]["listed"]]


def _marked(text: str) -> markupsafe.Markup:
    """Our own prose as HTML, with its `code` and *math* marked up."""

    def element(name: str) -> Callable[[str], str]:
        return lambda part: markupsafe.Markup(f"<{name}>{{}}</{name}>").format(visible(part))

    return markupsafe.Markup(prose(text, markupsafe.escape, element("code"), element("var")))
