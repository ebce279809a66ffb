"""Print the estimate of what a profile will cost."""

import os
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtbert.data.batches import row_tokens
from mtbert.params import Params
from mtbert.pipeline.planning import settings_of_stages
from mtbert.pipeline.rates import Rates
from mtbert.pipeline.sizes import EncoderSize, Rows
from mtbert.pipeline.workload import Workload
from mtbert.settings.run import Run
from mtbert.training.compute import Compute, machine

SECONDS_PER_STAGE = 2.0  # start, imports and DVC's own work: 0.5 s without torch, 3 s with it, on two cores of an EPYC
BYTES_PER_WORDPIECE = 5  # of English text


def show(
    console: Console,
    params: Params,
    rows: Rows,
    size: EncoderSize,
    work: Mapping[str, Workload],
    rates: Rates,
    compute: Compute,
    study: str | None = None,
) -> None:
    """Print the estimate: a table of the runs and some lines, at most 100 columns wide."""
    console.width = min(console.width, 100)
    seconds = {
        name: rates.seconds(run, work[name].backwards, work[name].backward_tokens, work[name].watched)
        for name, run in params.runs.items()
    }
    evaluation = sum(rates.prediction(params.runs[name], work[name].evaluated) for name in params.runs)
    stages = len(settings_of_stages(params)) + 1
    starts = stages * SECONDS_PER_STAGE
    examples = ", ".join(f"{splits['train']:,} {task}" for task, splits in rows.sizes.items())
    table = Table("run", box=box.SIMPLE if console.is_terminal else None)
    for head in ("steps", "tokens", "minutes"):
        table.add_column(head, justify="right")
    for name, one in work.items():
        table.add_row(name, f"{one.steps:,}", _count(one.tokens), _minutes(seconds[name]))
    steps, tokens = sum(one.steps for one in work.values()), sum(one.tokens for one in work.values())
    training = sum(seconds.values())
    table.add_row("all runs", f"{steps:,}", _count(tokens), _minutes(training))
    # The steps that were measured hold one gradient, not one of each task.
    held = 4 * rates.largest.trained * max(map(_gradients, params.runs.values()))
    main, gpu = rates.memory
    main, gpu = (main, gpu + held) if gpu else (main + held, gpu)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    busy = f" It is busy now (load {load:.1f} on {cores} cores), so an idle machine needs less." if load > cores else ""
    what = f"profile {params.profile}" if study is None else f"study {study}, profile {params.profile},"
    console.print(Text(f"Estimate for {what} on this machine, if nothing of it is done yet"))
    console.print(
        _facts(
            data=f"{rows.source}: {examples} training examples",
            encoder=f"{size.source}: {rates.largest.parameters / 1e6:.1f} million parameters",
        )
    )
    console.print(table)
    console.print(
        _facts(
            time=f"training with its dev metrics {_minutes(training)} min, evaluation {_minutes(evaluation)} min, "
            f"start of {stages} stages {_minutes(starts)} min: {_duration(training + evaluation + starts)} in all",
            memory=f"{_bytes(main)} at the peak" + (f", and {_bytes(gpu)} on the GPU" if gpu else ""),
            disk=f"{_bytes(disk_bytes(params, rows, rates))} for data, models, results and checkpoints",
            measured=f"now, on {_speeds(rates, compute)}",
        )
    )
    recording = " Recording the graphs, once for each shape of a batch, comes on top." if compute.graphs else ""
    console.print(Text(f"This is an estimate. Other work on the machine makes it take longer.{recording}{busy}"))


def disk_bytes(params: Params, rows: Rows, rates: Rates) -> float:
    """Bytes on disk: data, models, results, and two checkpoints, since the old one is kept until the new one is written. That of
    further pretraining is kept too.
    """
    weights = 4.0 * rates.largest.parameters
    total = weights  # the encoder's
    for name, run in params.runs.items():
        converted = 0 if run.start_run else rates.added[name]
        total += 4.0 * (rates.kept[name] + converted)  # models/RUN and models/converted/RUN
    checkpoints = 3 if any(run.further_pretraining for run in params.runs.values()) else 2
    total += checkpoints * max(map(_copies, params.runs.values())) * 4 * rates.largest.trained
    text = {
        (task, split): count * float(row_tokens(rows.sample[task], ("u", "v"), 10**6).mean()) * BYTES_PER_WORDPIECE
        for task, splits in rows.sizes.items()
        for split, count in splits.items()
    }
    # As fetched, and prepared twice: text and wordpieces. Each run lists its dev and test examples.
    total += 3 * sum(text.values())
    return total + len(params.runs) * sum(count for (_, split), count in text.items() if split != "train")


def _copies(run: Run) -> int:
    """How many numbers a checkpoint holds of each trained weight: itself, two moments, and its average and best value if they are kept."""
    optimization = run.optimization
    return 3 + (bool(optimization.average) + bool(optimization.hold_out) if optimization else 0)


def _gradients(run: Run) -> int:
    """How many gradients training holds besides the parameters' own."""
    return len(run.tasks) if run.sampler == "joint" or run.measure_conflicts else 0


def _facts(**texts: str) -> Table:
    """One line for each text; long ones are wrapped and indented."""
    table = Table.grid(padding=(0, 2))
    for name, text in texts.items():
        table.add_row(name, Text(text))
    return table


def _speeds(rates: Rates, compute: Compute) -> str:
    """The machine and the measured speeds."""
    described = compute.describe()
    where = machine() if compute.device.type == "cpu" else described["device"]
    speeds = [
        f"{what} {rate.tokens / rate.seconds:,.0f} tokens/s ({rate.run}, {rate.tokens:,} tokens a step)"
        for what, rate in rates.training.items()
    ]
    how = f"{described['precision']}{', steps replayed as CUDA graphs' * compute.graphs}"
    return f"{where}, {how}: {', '.join(speeds)}, prediction {1 / rates.predict:,.0f}"


def _count(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count >= 1e6 else f"{count / 1e3:,.1f} k"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 600 else f"{seconds / 60:,.0f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min" if minutes < 600 else f"about {minutes / 60:,.0f} h"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
