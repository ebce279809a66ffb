"""The metrics logged during training: of each task on dev, and of one task on training examples (Figure 2)."""

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

# Enough for a point of a learning curve: its standard error is 2 percentage points. All of Quora's dev split would take longer
# than a short run's training; the evaluate stage predicts all of it.
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
    """`train_sst` if SST is among the tasks, `dev_NAME` of each task, and `dev_overall` if all of the paper's are; None if undefined.

    Args:
        tasks, objectives: of the model's heads, by name; the metrics are in this order.
        dev: labelled splits. SST's is predicted whole, of each other a seeded sample of `WATCHED` rows.
        train: splits by task. SST's accuracy is measured, without dropout, on a seeded sample as large as its dev split.
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
        metrics[f"train_{CURVE.name}"] = measure(CURVE.name, fitted, _sample(len(fitted), len(dev[CURVE.name]), seed))
    scores: dict[str, float | None] = {}
    for name in tasks:
        split = dev[name]
        rows = np.arange(len(split)) if name == CURVE.name else _sample(len(split), WATCHED, seed)
        scores[name] = measure(name, split, rows)
    metrics |= {f"dev_{name}": score for name, score in scores.items()}
    if TASKS.keys() <= scores.keys():
        metrics["dev_overall"] = overall_of(scores)
    return metrics


def _sample(rows: int, count: int, seed: int) -> np.ndarray:
    # The key has five words because shorter ones are padded with zeros, which would give the sampler's stream of the first epoch.
    return np.random.default_rng([seed, 0, 0, 0, 1]).permutation(rows)[:count]
