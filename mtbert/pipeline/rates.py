"""Measure how fast this machine trains and predicts, by timing steps of models of the encoder's size with random weights."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch, row_tokens
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for
from mtbert.evaluation.predict import raw_scores
from mtbert.model.bert import BertConfig
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import adapter_state, count_parameters, kept_state
from mtbert.pipeline.ahead import views_of
from mtbert.pipeline.models import adapt, build, on_meta
from mtbert.pipeline.training import losses_of
from mtbert.pretrained.weights import random_weights
from mtbert.settings.run import Run
from mtbert.training.compute import Compute, peak_memory
from mtbert.training.recipe import Recipe
from mtbert.training.step import naming_batch_size

SECONDS = 4.0  # per measurement; there are two for each kind of run, and one of prediction
FULL = "full fine-tuning"
PREDICTED = {"cpu": 32, "cuda": 256}  # rows of each task; a GPU needs more, since short batches do not fill it


class Rate(NamedTuple):
    """The speed of training, measured on one run.

    Attributes:
        step, token: a step of one batch takes step + token * (its tokens) seconds, if the run pools all tokens.
        run, tokens, seconds: the run, and the tokens and seconds of its longer steps.
        parameters, trained: numbers of weights: of the plain model, and those of model and adapter that train.
    """

    step: float
    token: float
    run: str
    tokens: int
    seconds: float
    parameters: int
    trained: int


class Rates(NamedTuple):
    """All measured speeds.

    Attributes:
        training: by kind of run: `FULL`, and each method of adapters, of which the largest is measured.
        added, kept: each run's number of weights in its adapter, and in its trained model's file.
        predict: seconds per token of prediction.
        layers: number of the encoder's layers.
        memory: peak bytes of this process, in main memory and on the GPU (or 0).
    """

    training: dict[str, Rate]
    added: dict[str, int]
    kept: dict[str, int]
    predict: float
    layers: int
    memory: tuple[int, int]

    @property
    def largest(self) -> Rate:
        """The speed of the run with the largest checkpoint."""
        return max(self.training.values(), key=lambda rate: rate.trained)

    def seconds(self, run: Run, backwards: int, tokens: float, watched: float) -> float:
        """Seconds of a run's training: of its backward passes, with these tokens, and of its dev metrics, on `watched` tokens.

        A pass takes as long as a step of one batch, although a joint step has several and one update.
        """
        rate = self.training[kind(run)]
        return rate.step * backwards + rate.token * tokens * share(run, self.layers) + self.prediction(run, watched)

    def prediction(self, run: Run, tokens: float) -> float:
        """Seconds to predict on this many tokens."""
        return self.predict * tokens * share(run, self.layers)


def measure(
    runs: Mapping[str, Run], config: BertConfig, sample: Mapping[str, Split], wrapper: Wrapper, compute: Compute
) -> Rates:
    """Measure training and prediction. Of each kind of run the one with the longest steps is taken.

    Args:
        runs: the profile's runs.
        config: the encoder's size.
        sample: training rows of each task.

    Raises:
        MtbertError: an adapter does not fit the encoder, or memory ran out; training would raise the same.
    """
    sizes = {name: _sizes(name, run, config) for name, run in runs.items()}
    added = {name: size for name, (size, _) in sizes.items()}
    kept = {name: size for name, (_, size) in sizes.items()}
    rates: dict[str, Rate] = {}
    predict = 0.0
    for what in sorted({kind(run) for run in runs.values()}, key=lambda what: (what != FULL, what)):
        names = [name for name, run in runs.items() if kind(run) == what]
        name = max(
            names, key=lambda name: (added[name], runs[name].passes * sum(map(len, views_of(runs[name]).values())))
        )
        model = _model(name, runs[name], config).to(compute.device)
        rates[what] = _training(model, name, runs[name], sample, wrapper, compute)
        predict = predict or _prediction(model, sample, wrapper, compute) / share(runs[name], config.layers)
        del model
    return Rates(rates, added, kept, predict, config.layers, peak_memory(compute.device))


def kind(run: Run) -> str:
    """What a step's time depends on: full fine-tuning, or the adapter's method."""
    return run.adapter.method if run.adapter else FULL


def share(run: Run, layers: int) -> float:
    """The share of the encoder's work that the run's pooling needs: cls needs most of the last layer for [CLS] only.

    Query, key and value are 3 of a layer's 12 D by D products; the output projection and the feed-forward network are
    the other 9.
    """
    return 1 - 9 / 12 / layers if run.pooling == "cls" else 1.0


def _model(name: str, run: Run, config: BertConfig) -> MultitaskModel:
    model = build(run, config)
    # Not strict, since a model without cls pooling has no pooler.
    model.encoder.load_state_dict(random_weights(config, run.seed), strict=False)
    if run.adapter:
        adapt(model, run, f"runs.{name}")
    return model


def _sizes(name: str, run: Run, config: BertConfig) -> tuple[int, int]:
    """The numbers of weights in a run's adapter, and in its trained model's file."""
    model = on_meta(run, config, f"runs.{name}")
    whole = run.adapter is None or run.start_run
    kept = model.state_dict() if whole else kept_state(model)
    return _numel(adapter_state(model)), _numel(kept)


def _numel(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _training(
    model: MultitaskModel, name: str, run: Run, sample: Mapping[str, Split], wrapper: Wrapper, compute: Compute
) -> Rate:
    tokens = {task: row_tokens(sample[task], model.views(task), wrapper.max_tokens) for task in run.tasks}
    light, heavy = (choose(run.tasks, key=lambda task: tokens[task].mean()) for choose in (min, max))
    engine = engine_for(model, compute)
    engine.optimizer(
        Recipe(run.sampler, run.epoch_end, run.epochs, run.batch_size, run.learning_rate, passes=run.passes)
    )
    losses = losses_of(run)

    def step_on(task: str, rows: np.ndarray) -> Callable[[], float]:
        def step() -> float:
            batch = make_batch(task, sample[task], np.tile(rows, run.passes), model.views(task), wrapper)
            with naming_batch_size(compute, f"runs.{name}: a step ({task})"):
                return float(engine.step(batch, losses[task], run.seed, 1))

        return step

    timed = []
    for task in (light, heavy):
        rows = np.random.default_rng(run.seed).integers(len(sample[task]), size=run.batch_size)
        timed.append((run.passes * int(tokens[task][rows].sum()), _seconds(step_on(task, rows))))
    (few, short), (many, long) = timed
    # A line through both points. If they coincide, or noise makes the slope or intercept negative, a line through zero.
    token = (long - short) / (many - few) if many > few else 0.0
    if not 0 < token <= short / few:
        token = long / many
    step = long - token * many
    rows = np.argsort(tokens[heavy])[-run.batch_size :]
    if step + token * run.passes * tokens[heavy][rows].sum() < SECONDS:
        step_on(heavy, rows)()  # the longest batch, for the peak of memory
    counts = count_parameters(model)
    return Rate(step, token, name, many, long, counts["total"] or 0, counts["trainable"] or 0)


def _prediction(model: MultitaskModel, sample: Mapping[str, Split], wrapper: Wrapper, compute: Compute) -> float:
    """Seconds per token."""
    sample = {task: split for task, split in sample.items() if task in model.heads}
    rows = {task: np.arange(min(PREDICTED[compute.device.type], len(split))) for task, split in sample.items()}
    counts = [row_tokens(sample[task], model.views(task), wrapper.max_tokens)[rows[task]].sum() for task in rows]

    engine = engine_for(model, compute)

    def predict() -> None:
        with engine.inference():
            for task, split in sample.items():
                raw_scores(model, task, split, wrapper, rows=rows[task])

    return _seconds(predict) / int(sum(counts))


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of up to seven times: the first calls warm up, and other work on the machine can only add time."""
    times: list[float] = []
    while len(times) < 7 and sum(times) < SECONDS:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
