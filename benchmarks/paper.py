"""The time of all runs of params.yaml under profile `paper`: 10 epochs, full datasets, BERT-base, extrapolated from measured steps.

A step's time depends on the run's kind (pooling, features, adapter, batch size) and on the task. Each such pair is
measured on a slice. A run's time is the sum over the steps of its schedule, its graph recordings and its evaluations.

`python -m benchmarks.paper` measures nothing: it multiplies the steps of the schedules by the times of gpu-passes.json.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.card import TOKENS, Setting, free, made_up
from benchmarks.harness import RESULTS, Target, write
from benchmarks.work import batches, stepper, wait
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.engines import engine_for
from mtbert.errors import MtbertError
from mtbert.evaluation.development import WATCHED, development_metrics
from mtbert.fast.cuda.static import rows_for
from mtbert.model.bert import BertEncoder, initialise
from mtbert.model.heads import build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.params import load_params
from mtbert.pipeline.models import adapt
from mtbert.pipeline.training import losses_of
from mtbert.settings.run import Run
from mtbert.training.compute import Compute
from mtbert.training.recipe import TokenCount
from mtbert.training.sampling import epoch_schedule, sampler_in

SIZES = {"sst": 8544, "quora": 283_003, "sts": 6040}
EPOCHS = 10
MINUTES = 60.0


class Slice(NamedTuple):
    """Seconds of a step and of a graph recording, and the number of shapes that a whole run would record."""

    step: float
    recording: float
    shapes: int


def paper(setting: Setting) -> None:
    """Estimate the minutes of each run and of all; writes gpu-paper.json after each run."""
    runs, compute = timed(load_params(profile="paper").runs), setting.graphs
    data = {task: made_up(task, 400 if setting.tiny else 20_000) for task in SIZES}
    measured: dict[str, tuple[dict[str, Slice], float]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        if setting.over:
            _print(setting, rows)
            raise TimeoutError(f"there was time for {len(rows)} of {len(runs)} runs")
        kind = kind_of(run)
        if kind not in measured:
            try:
                measured[kind] = measure(run, setting, compute, data)
            except MtbertError as error:  # if steps cannot be recorded, launch kernel by kernel
                Console(stderr=True).print(str(error))
                compute = setting.compute
                measured[kind] = measure(run, setting, compute, data)
        rows[name] = extrapolated(run, *measured[kind], setting) | {"graphs": compute.graphs}
        _write(setting, rows, len(runs))
    _print(setting, rows)


def timed(runs: Mapping[str, Run]) -> dict[str, Run]:
    """The runs that can be timed here; a note names the others."""
    reasons = {name: why for name, run in runs.items() if (why := _not_timed(run))}
    if reasons:
        listed = "; ".join(f"{name} ({why})" for name, why in reasons.items())
        Console(stderr=True).print(f"note: not timed: {listed}", markup=False)
    return {name: run for name, run in runs.items() if name not in reasons}


def _not_timed(run: Run) -> str | None:
    """Why a run cannot be timed here; None if it can."""
    if other := {*run.tasks, *run.heads} - SIZES.keys():
        return f"the size of {', '.join(sorted(other))} is not known"
    if run.sampler == "joint":
        return "its steps hold a batch of every task"
    if isinstance(run.epoch_end, TokenCount):
        return "its epochs end by tokens, and the data here is made up"
    return None


def kind_of(run: Run) -> str:
    """A key of all that a step's time depends on, and of the tasks, since each kind is measured on its own tasks."""
    settings = run.model_dump()
    keys = ("tasks", "pooling", "heads", "batch_size", "encoder_dropout", "head_dropout", "adapter")
    return json.dumps({key: settings[key] for key in keys}, sort_keys=True)


def measure(run: Run, setting: Setting, compute: Compute, data: dict[str, Split]) -> tuple[dict[str, Slice], float]:
    """A slice for each of the run's tasks, and the seconds of an evaluation."""
    model = build(run, setting)
    found = {str(task): slice_of(run, model, setting, compute, data[task]) for task in run.tasks}
    evaluation = evaluated(run, model, setting.compute, data, tiny=setting.tiny)
    del model
    free(setting.device)
    return found, evaluation


def build(run: Run, setting: Setting) -> MultitaskModel:
    """The run's model at the setting's size, with random weights, on the device."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        encoder = BertEncoder(setting.config, run.encoder_dropout)
        encoder.apply(initialise)
        heads = build_heads(run.heads, run.known, setting.config.hidden, run.head_dropout, encoder.noise)
        model = MultitaskModel(encoder, run.pooling, heads)
    if run.adapter is not None:
        adapt(model, run, "runs")
    return model.to(setting.device)


def slice_of(run: Run, model: MultitaskModel, setting: Setting, compute: Compute, data: Split) -> Slice:
    """Run the same batches twice; the first pass also records graphs."""
    engine, loss_of = stepper(model, compute, run.batch_size), losses_of(run)[data.task]
    chosen, views = batches(len(data), run.batch_size, 0), model.views(data.task)
    stream = [next(chosen) for _ in range(3 if setting.tiny else 40)]
    seconds = []
    for _ in range(2):
        wait(setting.device)
        began = time.perf_counter()
        for step, rows in enumerate(stream, start=1):
            engine.step(make_batch(data.task, data, rows, views, TOKENS), loss_of, 0, step)
        wait(setting.device)
        seconds.append(time.perf_counter() - began)
    recorded = getattr(engine, "recorded", 0)
    recording = max(0.0, seconds[0] - seconds[1]) / recorded if recorded else 0.0
    tokens = np.array([_tokens(data, next(chosen), views) for _ in range(100 if setting.tiny else 3000)])
    shapes = len({rows_for(int(count)) for count in tokens}) if recorded else 0
    return Slice(seconds[1] / len(stream), recording, shapes)


def evaluated(run: Run, model: MultitaskModel, compute: Compute, data: dict[str, Split], tiny: bool) -> float:
    """Seconds of an evaluation, as the loop does it before the first epoch and after each."""
    sizes = dict.fromkeys(SIZES, 24 if tiny else WATCHED)
    dev = {task: made_up(task, count) for task, count in sizes.items()}
    engine = engine_for(model, compute)
    for _ in range(2):
        began = time.perf_counter()
        with engine.inference():
            development_metrics(model, run.known, run.heads, dev, data, TOKENS, seed=0)
    return time.perf_counter() - began


def extrapolated(run: Run, slices: dict[str, Slice], evaluation: float, setting: Setting) -> dict[str, Any]:
    """Steps by task in the run's schedule at full size, and the minutes that they would take."""
    steps = scheduled(run, 1000 if setting.tiny else 1)
    training = sum(steps.get(task, 0) * one.step for task, one in slices.items())
    recording = sum(one.shapes * one.recording for one in slices.values())
    evaluating = (EPOCHS + 1) * evaluation
    return {
        "steps": steps,
        "batch_size": run.batch_size,
        "step_seconds": {task: one.step for task, one in slices.items()},
        "training_minutes": training / 60,
        "recording_minutes": recording / 60,
        "evaluation_minutes": evaluating / 60,
        "minutes": (training + recording + evaluating) / 60,
    }


def scheduled(run: Run, smaller: int = 1) -> dict[str, int]:
    """Steps by task in the run's schedule, on datasets of the paper's sizes divided by `smaller`."""
    sizes = {str(task): SIZES[task] // smaller for task in run.tasks}
    steps: Counter[str] = Counter()
    for epoch in range(EPOCHS):
        sampler = sampler_in(run.sampler, epoch, EPOCHS)
        schedule = epoch_schedule(sizes, run.batch_size, sampler, run.epoch_end, run.seed, epoch)
        steps.update(draw.task for draw in schedule)
    return dict(steps)


def main() -> None:
    """The steps of all runs under profile `paper`, and their minutes if each step took the time that gpu-passes.json has."""
    measured = json.loads((RESULTS / "gpu-passes.json").read_text(encoding="utf-8"))
    runs, milliseconds = timed(load_params(profile="paper").runs), measured["milliseconds_per_step"]
    table = Table(title=f"Batches of {measured['batch_size']}, {EPOCHS} epochs at full size")
    for column in ("run", "steps", "ms a step", "minutes"):
        table.add_column(column, justify="left" if column == "run" else "right")
    steps_of_all, minutes_of_all = 0, 0.0
    for name, run in runs.items():
        if run.batch_size != measured["batch_size"]:
            raise MtbertError(
                f"{name}: batches of {run.batch_size}, but steps were measured at {measured['batch_size']}"
            )
        steps, each = sum(scheduled(run).values()), milliseconds["DoRA, Triton" if run.adapter else "full, Triton"]
        minutes = steps * each / 60_000
        table.add_row(name, f"{steps:,}", f"{each:.2f}", f"{minutes:.1f}")
        steps_of_all, minutes_of_all = steps_of_all + steps, minutes_of_all + minutes
    table.add_row("all", f"{steps_of_all:,}", "", f"{minutes_of_all:.1f}")
    Console().print(table)


def _tokens(data: Split, rows: np.ndarray, views: tuple[str, ...]) -> int:
    """Tokens of a batch, as `make_batch` would lay it out; sentences here are too short to be cut."""
    first = int(np.diff(data.offsets1)[rows].sum())
    second = 0 if data.offsets2 is None else int(np.diff(data.offsets2)[rows].sum())
    of_view = {"u": first + 2 * len(rows), "v": second + 2 * len(rows), "c": first + second + 3 * len(rows)}
    return sum(of_view[view] for view in views)


def _write(setting: Setting, rows: dict[str, dict[str, Any]], runs: int) -> None:
    total = sum(row["minutes"] for row in rows.values())
    result: dict[str, Any] = {
        "extrapolated": "steps were measured on a slice; minutes are that time multiplied by the steps of the run's schedule",
        "made_up_data": "random wordpieces; lengths are set in benchmarks/card.py",
        "epochs": EPOCHS,
        "sizes": SIZES,
        "runs": rows,
        "runs_wanted": runs,
        "minutes": total,
        "complete": len(rows) == runs,
    }
    if len(rows) == runs:
        target = Target(f"minutes of all {runs} runs, one after another", total, MINUTES, True)
        result["targets"] = [target.described()]
    write(setting.name("paper"), result)


def _print(setting: Setting, rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"{setting.name('paper')}: {EPOCHS} epochs at full size, extrapolated from slices")
    for column in ("run", "steps", "ms a step", "minutes"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, row in rows.items():
        steps = sum(row["steps"].values())
        milliseconds = 60_000 * row["training_minutes"] / steps
        table.add_row(name, f"{steps:,}", f"{milliseconds:.2f}", f"{row['minutes']:.2f}")
    table.add_row("all", "", "", f"{sum(row['minutes'] for row in rows.values()):.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
