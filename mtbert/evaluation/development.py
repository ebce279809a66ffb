"""The metrics logged during training: of each task on dev, and of one task on training examples (Figure 2)."""

from collections.abc import Mapping

import numpy as np

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import METRICS
from mtbert.evaluation.predict import raw_scores
from mtbert.evaluation.watched import WATCHED
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.objective import Objective
from mtbert.tasks.paper import CURVE, TASKS, overall_of
from mtbert.tasks.task import Task


def development_metrics(
    model: MultitaskModel,
    tasks: Mapping[str, Task],
    objectives: Mapping[str, Objective],
    dev: Mapping[str, Split],
    train: Mapping[str, Split],
    wrapper: Wrapper,
    *,
    seed: int,
    watched: int = WATCHED,
    held_out: Mapping[str, Split] | None = None,
) -> dict[str, float | None]:
    """`train_sst` if SST is among the tasks, `dev_NAME` of each task, and `dev_overall` if all of the paper's are; None if undefined.

    With `held_out` also `held_out`, the `mean_score` of its tasks.

    Args:
        tasks, objectives: of the model's heads, by name; the metrics are in this order.
        dev: labelled splits; of each, a seeded sample of at most `watched` rows is predicted.
        train: splits by task. SST's accuracy is measured, without dropout, on as many of its examples as in dev.
        held_out: splits by task, all rows of which are predicted.
    """

    def measure(name: str, split: Split, rows: np.ndarray) -> float | None:
        assert split.labels is not None
        raw = raw_scores(model, name, split, wrapper, rows=rows)
        values = objectives[name].values_while_training(raw, tasks[name])
        try:
            return METRICS[objectives[name].metric](split.labels[rows], values)
        except MtbertError:  # Pearson's r of constant predictions
            return None

    metrics: dict[str, float | None] = {}
    if CURVE.name in tasks:
        fitted = train[CURVE.name]
        count = min(len(dev[CURVE.name]), watched)
        metrics[f"train_{CURVE.name}"] = measure(CURVE.name, fitted, _sample(len(fitted), count, seed))
    scores = {name: measure(name, dev[name], _sample(len(dev[name]), watched, seed)) for name in tasks}
    metrics |= {f"dev_{name}": score for name, score in scores.items()}
    if TASKS.keys() <= scores.keys():
        metrics["dev_overall"] = overall_of(scores)
    if held_out:
        found = {name: measure(name, split, np.arange(len(split))) for name, split in held_out.items()}
        metrics["held_out"] = mean_score(found, {name: objectives[name].metric for name in found})
    return metrics


def mean_score(scores: Mapping[str, float | None], metrics: Mapping[str, str]) -> float:
    """The mean of the tasks' scores: accuracies, and (1 + r) / 2 of correlations, where an undefined r counts as 0."""
    values = [(1 + (r or 0)) / 2 if metrics[name] == "pearson" else r or 0 for name, r in scores.items()]
    return sum(values) / len(values)


def _sample(rows: int, count: int, seed: int) -> np.ndarray:
    # The key has five words because shorter ones are padded with zeros, which would give the sampler's stream of the first epoch.
    return np.random.default_rng([seed, 0, 0, 0, 1]).permutation(rows)[:count]
