"""How much a run has to compute: training steps and tokens, counted from its schedule and the data's size."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mtbert.data.arrays import held_out_rows
from mtbert.data.batches import row_tokens
from mtbert.evaluation.watched import watched
from mtbert.pipeline.ahead import views_of
from mtbert.pipeline.sizes import Rows
from mtbert.settings.run import Run
from mtbert.tasks.paper import CURVE
from mtbert.training.sampling import batches_per_step, epoch_schedule, sampler_in


class Workload(NamedTuple):
    """What a run has to compute.

    Attributes:
        steps, tokens: training steps, and the tokens of their batches.
        backwards, backward_tokens: backward passes, one a batch, and their tokens: of the steps, of measured conflicts and of
            further pretraining.
        watched: tokens of the dev metrics during training.
        evaluated: tokens of the evaluate stage.
    """

    steps: int
    tokens: float
    backwards: int
    backward_tokens: float
    watched: float
    evaluated: float


def workload(run: Run, rows: Rows, max_tokens: int) -> Workload:
    """Count a run's work. The counts are exact, except that sentences have the mean length of the sample."""
    views = views_of(run)
    sampled = {task: row_tokens(rows.sample[task], views[task], max_tokens) for task in run.known}
    lengths = {task: float(tokens.mean()) for task, tokens in sampled.items()}
    share = run.optimization.hold_out if run.optimization else None
    held_out = {task: held_out_rows(rows.sizes[task]["train"], share) if share else 0 for task in run.tasks}
    train: dict[str, int] = {task: rows.sizes[task]["train"] - held_out[task] for task in run.tasks}
    every = {task: run.passes * np.resize(sampled[task], size) for task, size in train.items()}
    # The epochs are alike unless tasks are sampled at random until something is used up; then all of them are counted.
    varies = not isinstance(run.epoch_end, int) and run.sampler not in ("sequential", "round_robin", "joint")
    epochs, repeated = (run.epochs, 1) if varies or run.sampler == "annealed" else (1, run.epochs)
    batches, examples = 0, Counter[str]()
    for epoch in range(epochs):
        sampler = sampler_in(run.sampler, epoch, run.epochs)
        for task, chosen in epoch_schedule(train, run.batch_size, sampler, run.epoch_end, run.seed, epoch, every):
            batches += 1
            examples[task] += len(chosen)
    sizes = {task: rows.sizes[task] for task in run.known}
    most = watched(run.epoch_end, run.batch_size, len(sizes))
    seen = {task: min(splits["dev"], most) for task, splits in sizes.items()}
    if curve := sizes.get(CURVE.name):
        seen[CURVE.name] += min(seen[CURVE.name], curve["train"])
    for task, count in held_out.items():
        seen[task] += count
    evaluated = {task: splits["dev"] + splits.get("test", 0) for task, splits in sizes.items()}
    batches, tokens = batches * repeated, run.passes * _tokens(examples, lengths) * repeated
    steps = batches // batches_per_step(run.sampler, len(run.tasks))
    measured = -(-steps // run.measure_conflicts) if run.measure_conflicts else 0
    a_batch_each = run.passes * _tokens({task: min(run.batch_size, size) for task, size in train.items()}, lengths)
    further, further_tokens = _further(run, rows, max_tokens)
    return Workload(
        steps,
        tokens,
        batches + measured * len(run.tasks) + further,
        tokens + measured * a_batch_each + further_tokens,
        _tokens(seen, lengths) * (run.epochs + 1),
        _tokens(evaluated, lengths),
    )


def _further(run: Run, rows: Rows, max_tokens: int) -> tuple[int, float]:
    """Steps and tokens of further pretraining, whose sentences are drawn from all of the tasks'."""
    if (further := run.further_pretraining) is None:
        return 0, 0.0
    sentences, tokens = 0, 0.0
    for task in run.tasks:
        for view in ("u", "v")[: len(run.known[task].texts)]:
            size = rows.sizes[task]["train"]
            sentences += size
            tokens += size * float(row_tokens(rows.sample[task], (view,), max_tokens).mean())
    return further.steps, further.steps * further.batch_size * tokens / sentences


def _tokens(examples: Mapping[str, int], lengths: Mapping[str, float]) -> float:
    return sum(count * lengths[task] for task, count in examples.items())
