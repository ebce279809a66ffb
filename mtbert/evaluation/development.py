"""The metrics that are watched while training: each task's on dev, and one task's on training examples too (Figure 2)."""

from collections.abc import Mapping

import numpy as np

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import METRICS
from mtbert.evaluation.predict import raw_scores
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.objective import Objective
from mtbert.tasks.paper import CURVE, TASKS, overall_of
from mtbert.tasks.task import Task

# A curve's point needs no more: 2 points of standard error. All of dev is for the evaluate stage; watching all of Quora's
# would take longer than a short run's training.
WATCHED = 500


def development_metrics(
    model: MultitaskModel,
    tasks: Mapping[str, Task],
    objectives: Mapping[str, Objective],
    dev: Mapping[str, Split],
    train: Mapping[str, Split],
    wrapper: Wrapper,
    *,
    seed: int,
) -> dict[str, float | None]:
    """`dev_NAME` for each task; `train_sst` before and `dev_overall` after them where they can be had. One that is undefined is None.

    Args:
        tasks, objectives: by name, those of the model's heads; the metrics come in this order.
        dev: labelled splits; of each but Figure 2's task a seeded choice of `WATCHED` rows is predicted.
        train: of Figure 2's task, whose metric is measured, without dropout, on a seeded choice of as many rows as its dev split has.
    """

    def measure(name: str, split: Split, rows: np.ndarray) -> float | None:
        assert split.labels is not None
        values = objectives[name].decide(raw_scores(model, name, split, wrapper, rows=rows), tasks[name]).values
        try:
            return METRICS[objectives[name].metric](split.labels[rows], values)
        except MtbertError:  # Pearson's r of constant predictions
            return None

    metrics: dict[str, float | None] = {}
    if CURVE.name in tasks:
        fitted = train[CURVE.name]
        metrics[f"train_{CURVE.name}"] = measure(CURVE.name, fitted, _choice(len(fitted), len(dev[CURVE.name]), seed))
    scores: dict[str, float | None] = {}
    for name in tasks:
        split = dev[name]
        rows = np.arange(len(split)) if name == CURVE.name else _choice(len(split), WATCHED, seed)
        scores[name] = measure(name, split, rows)
    metrics |= {f"dev_{name}": score for name, score in scores.items()}
    if TASKS.keys() <= scores.keys():
        metrics["dev_overall"] = overall_of(scores)
    return metrics


def _choice(rows: int, count: int, seed: int) -> np.ndarray:
    # A fifth word: shorter keys are padded with zeros, and would be the sampler's stream for the first epoch.
    return np.random.default_rng([seed, 0, 0, 0, 1]).permutation(rows)[:count]
