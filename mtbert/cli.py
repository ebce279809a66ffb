"""The `mtbert` command: a subcommand for every stage of the pipeline but `plan`, and others that estimate the cost, compare runs, use a
trained model, hand the graph to another engine or machine, and maintain the project.

There is no logic here. A command imports what it needs when it runs, so --help is fast.
"""

import os
import shutil
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial, wraps
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from mtbert import completion
from mtbert.errors import MtbertError
from mtbert.pipeline.trained import trained_runs

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": shutil.get_terminal_size().columns},
    help="Multitask minBERT with parameter-efficient fine-tuning. `dvc repro` runs the stages, fetch to report, "
    "in order if their inputs changed; each also runs by itself, from the project's root. The other commands use, compare and move models.",
)

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A key under `runs:` in params.yaml, such as key_update_2.",
        autocompletion=completion.keys("runs"),
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run's name, for models/RUN, or a model's folder.", autocompletion=trained_runs
    ),
]
Project = Annotated[Path, typer.Option("--project", "-C", help="The project's root, the folder with params.yaml.")]
HERE = Path()


class Engine(Enum):
    SNAKEMAKE = "snakemake"


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command, whose errors become a message and an exit status.

    The list of commands shows the whole docstring; typer would cut it at 45 characters.
    """

    @wraps(function)
    def command(**arguments: Any) -> None:
        raise typer.Exit(import_module("mtbert.pipeline.start").guarded(partial(function, **arguments)))

    return app.command(short_help=" ".join((function.__doc__ or "").split()))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mtbert {version('mtbert')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    from mtbert.pipeline.start import share_cores

    share_cores()


@_command
def plan(
    profile: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROFILE]",
            help="A key under `profiles:`; by default the one that params.yaml selects.",
            autocompletion=completion.keys("profiles"),
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder with the course's files, instead of data.path, or `download`.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A folder of studies/, to estimate its runs instead of the project's."),
    ] = None,
    project: Project = HERE,
) -> None:
    """Print what PROFILE will cost on this machine: steps, tokens, minutes, memory, disk. (The stage `plan` is `dvc repro plan`.)"""
    if data is not None and data != "download":
        data = str(_resolved(Path(os.path.expanduser(data))))  # noqa: PTH111 - unlike Path.expanduser, it does not raise
    _enter(project)
    import_module("mtbert.pipeline.cost").main(profile, data, study)


@_command
def fetch(project: Project = HERE) -> None:
    """Generate, copy or download the raw CSV files into data/raw, as data.source says."""
    _stage("fetch", project)


@_command
def encoder(project: Project = HERE) -> None:
    """Translate the pretrained encoder into models/pretrained, checking every tensor."""
    _stage("encoder", project)


@_command
def prepare(project: Project = HERE) -> None:
    """Validate, clean and tokenize data/raw into data/prepared; report faulty, repeated and leaked rows."""
    _stage("prepare", project)


@_command
def convert(run: RunName, project: Project = HERE) -> None:
    """Replace the linear layers of RUN's initial model by its adapter's, and count the trainable parameters."""
    _stage("convert", project, run)


@_command
def train(run: RunName, project: Project = HERE) -> None:
    """Train RUN into models/RUN; resumes from the last checkpoint if an earlier attempt was interrupted."""
    _stage("train", project, run)


@_command
def evaluate(run: RunName, project: Project = HERE) -> None:
    """Score RUN on dev and test; write its metrics, per-example tables and leaderboard files to results/RUN."""
    _stage("evaluate", project, run)


@_command
def statistics(project: Project = HERE) -> None:
    """Resample the dev examples: intervals, paired differences of all runs, and the spread over seeds."""
    _stage("statistics", project)


@_command
def table(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="table1 to table4.", autocompletion=completion.keys("tables"))
    ],
    project: Project = HERE,
) -> None:
    """Write a table of the paper next to our numbers, as CSV, Markdown and LaTeX."""
    _stage("table", project, name)


@_command
def figure(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="figure1 to figure4.", autocompletion=completion.keys("figures"))
    ],
    project: Project = HERE,
) -> None:
    """Draw a figure of the paper from our results, as PNG and SVG, with its data as CSV."""
    _stage("figure", project, name)


@_command
def report(project: Project = HERE) -> None:
    """Write the report page, the verdicts on the paper's claims and the error analysis."""
    _stage("report", project)


@_command
def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN", help="An evaluated run.", autocompletion=completion.keys("runs"))
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Another one, which is compared with the first.",
            autocompletion=completion.keys("runs"),
        ),
    ],
    examples: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Examples to list, per task and run, that this run alone gets right."),
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    project: Project = HERE,
) -> None:
    """Compare two runs: settings, scores on the same examples with intervals and p, flipped examples, size and time."""
    _enter(project)
    runs = import_module("mtbert.params").load_here().runs
    import_module("mtbert.compare").main(first, second, runs, examples=examples, as_json=as_json)


@_command
def errors(
    run: RunName,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="One task of the run, such as sts; by default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    project: Project = HERE,
) -> None:
    """Say where RUN errs on dev: calibration, distances between classes, and slices by length, overlap and negation."""
    _enter(project)
    params = import_module("mtbert.params").load_here()
    tasks = params.model_dump()["tasks"]
    import_module("mtbert.error_analysis").main(run, params.runs, tasks, task=task, as_json=as_json)


@_command
def predict(
    model: ModelName,
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="A task of the model, such as sts.", autocompletion=completion.tasks),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Sentences; for pairs, two each. Otherwise --input or stdin."),
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", "-i", metavar="FILE", help="Rows to predict; - is standard input.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="CSV or JSONL, by suffix; written whole or not at all."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="csv|jsonl|table", help="By default a table on a terminal, else CSV."),
    ] = None,
    input_format: Annotated[
        str | None,
        typer.Option(
            metavar="lines|tsv|csv|jsonl|parquet", help="By default by suffix; on stdin lines, or TSV for pairs."
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="The sentence columns, if named unlike the task's.")
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(metavar="error|skip", help="Stop at a bad row, or leave it out and report it.")
    ] = "error",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="auto|fp32|bf16", help="Of matrix products.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=65536, help="Rows computed together; bounds memory.")] = 64,
) -> None:
    """Predict TASK for sentences or pairs: labels with probabilities, or scores. Needs no params.yaml."""
    import_module("mtbert.inference.command").main(
        model,
        task,
        texts or (),
        input_file=input_,
        output_file=output,
        output_format=format_,
        input_format=input_format,
        columns=columns,
        on_bad_row=on_bad_row,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )


@_command
def export(
    model: ModelName,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to write; written whole or not at all.")],
    to: Annotated[
        str, typer.Option(metavar="transformers|sentence-transformers|peft|onnx", help="The library that loads it.")
    ],
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="One task of the model; by default all, or what they share.")
    ] = None,
) -> None:
    """Write MODEL as a folder that another library loads, with a model card. Needs no params.yaml."""
    import_module("mtbert.export.command").main(model, dest, to, task)


@_command
def doctor(project: Project = HERE) -> None:
    """Check this machine and this checkout; say what is missing and what to do. Exit status 1 if there is a problem."""
    root, levels = _enter(project), set()
    for check in import_module("mtbert.doctor").examine(root):
        typer.echo(str(check))
        levels.add(check.level)
    if "problem" in levels:
        raise typer.Exit(1)


@_command
def workflow(
    engine: Annotated[Engine, typer.Argument(metavar="ENGINE", help="snakemake.")], project: Project = HERE
) -> None:
    """Write the stale stages of DVC's graph for ENGINE (snakemake), which runs several at once or on a cluster."""
    _enter(project)
    import_module(f"mtbert.workflow.{engine.value}").main()


@_command
def bundle(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to write; written whole or not at all.")],
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A run to train there; may be repeated. By default all that are not trained here.",
            autocompletion=completion.keys("runs"),
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(metavar="STUDY", help="A folder of studies/, to train all of its runs there; may be repeated."),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Halve the size by rounding the encoder. `take` refuses such runs.")
    ] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="PACKAGE", help="A further package, such as transformers; may be repeated."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of the other machine, such as 3.12; by default this one.")
    ] = None,
    part_megabytes: Annotated[int, typer.Option(min=1, help="The largest size of a file.")] = 60,
    project: Project = HERE,
) -> None:
    """Pack code, packages, weights and prepared data for training runs on a machine without a network (docs/gpu.md)."""
    dest = _resolved(dest)
    _enter(project)
    pack = import_module("mtbert.bundle.pack").main
    pack(dest, run or (), study or (), fp16=fp16, more=add or (), python=python, megabytes=part_megabytes)


@_command
def take(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What the bundle's run.sh wrote.")],
    project: Project = HERE,
) -> None:
    """Bring the results of a bundle's runs into the graph, so that `dvc repro` does not train them again."""
    folder = _resolved(folder)
    _enter(project)
    import_module("mtbert.bundle.take").main(folder)


@_command
def clean(
    project: Project = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only list.")] = False,
) -> None:
    """List leftovers of killed runs and of runs no longer declared, with sizes; remove them after confirmation."""
    root = _enter(project)
    housekeeping = import_module("mtbert.housekeeping")
    runs = import_module("mtbert.params").load_params().runs
    found = housekeeping.leftovers(root, runs)
    typer.echo(housekeeping.listing(found))
    if found and not dry_run and (yes or typer.confirm("Remove all of it?", abort=True)):
        housekeeping.remove(root, runs, found)


def _stage(name: str, project: Path, *arguments: Any) -> None:
    """Plan from the present params.yaml, then run a stage."""
    _enter(project)
    import_module("mtbert.pipeline.planning").refresh(import_module("mtbert.params").load_params())
    import_module(f"stages.{name}").main(*arguments)


def _enter(project: Path) -> Path:
    """Change to the project's root and import stages from there, even if the package is installed from elsewhere."""
    root = _resolved(project)
    if not (root / "params.yaml").is_file():
        typer.echo(
            f"error: {root}: no params.yaml here; run from the project's root, or name it with --project", err=True
        )
        raise typer.Exit(2)
    os.chdir(root)
    sys.path.insert(0, str(root))
    return root


def _resolved(path: Path) -> Path:
    """The path made absolute, before `_enter` changes the folder.

    Raises:
        MtbertError: the folder that the command was given in has been removed.
    """
    try:
        return path.resolve()
    except FileNotFoundError:
        raise MtbertError(
            "the current folder has been removed; change to another folder, then run the command there"
        ) from None


def main() -> None:
    """Entry point of the `mtbert` script."""
    start = import_module("mtbert.pipeline.start")
    with start.quiet_pipe():
        sys.exit(start.guarded(app, several=True))  # each command checks how many processes it may have


if __name__ == "__main__":
    main()
