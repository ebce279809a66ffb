"""The metrics that are watched while training: SST on dev and on as many training examples (Figure 2), pairs on some of dev."""

from collections.abc import Mapping

import numpy as np

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import accuracy, overall, pearson
from mtbert.evaluation.predict import decide, raw_scores
from mtbert.model.multitask import MultitaskModel

# A curve's point needs no more: 2 points of standard error. All of dev is for the evaluate stage; watching all of Quora's
# would take longer than a short run's training.
PAIRS = 500


def development_metrics(
    model: MultitaskModel,
    dev: Mapping[str, Split],
    sst_train: Split,
    wrapper: Wrapper,
    *,
    sts_cosine: bool,
    clamp: bool,
    seed: int,
) -> dict[str, float | None]:
    """`train_sst`, `dev_sst`, `dev_quora`, `dev_sts` and `dev_overall`; a metric that is undefined is None.

    Args:
        dev: labelled split by task; of a pair task's, a seeded choice of `PAIRS` rows is predicted.
        sst_train: `train_sst` is measured, without dropout, on a seeded choice of len(dev["sst"]) of its rows.
        sts_cosine, clamp: as `predict.decide` takes them.
    """
    rows = _choice(len(sst_train), len(dev["sst"]), seed)
    assert sst_train.labels is not None
    fitted = decide("sst", raw_scores(model, "sst", sst_train, wrapper, rows=rows), cosine=False).values
    metrics: dict[str, float | None] = {"train_sst": accuracy(sst_train.labels[rows], fitted)}
    for task, split in dev.items():
        assert split.labels is not None
        rows = np.arange(len(split)) if task == "sst" else _choice(len(split), PAIRS, seed)
        values = decide(task, raw_scores(model, task, split, wrapper, rows=rows), cosine=sts_cosine, clamp=clamp).values
        try:
            metrics[f"dev_{task}"] = (pearson if task == "sts" else accuracy)(split.labels[rows], values)
        except MtbertError:  # Pearson's r of constant predictions
            metrics[f"dev_{task}"] = None
    scores = [metrics[f"dev_{task}"] for task in ("sst", "quora", "sts")]
    metrics["dev_overall"] = None if None in scores else overall(*scores)  # type: ignore[arg-type]
    return metrics


def _choice(rows: int, count: int, seed: int) -> np.ndarray:
    # A fifth word: shorter keys are padded with zeros, and would be the sampler's stream for the first epoch.
    return np.random.default_rng([seed, 0, 0, 0, 1]).permutation(rows)[:count]
