"""The metrics that are watched while training: all three tasks on dev, and SST on as many training examples (Figure 2)."""

from collections.abc import Mapping

import numpy as np

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import accuracy, overall, pearson
from mtbert.evaluation.predict import decide, raw_scores
from mtbert.model.multitask import MultitaskModel


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
        dev: labelled split by task.
        sst_train: `train_sst` is measured, without dropout, on a seeded choice of len(dev["sst"]) of its rows.
        sts_cosine, clamp: as `predict.decide` takes them.
    """
    # A fifth word: shorter keys are padded with zeros, and would be the sampler's stream for the first epoch.
    rows = np.random.default_rng([seed, 0, 0, 0, 1]).permutation(len(sst_train))[: len(dev["sst"])]
    assert sst_train.labels is not None
    fitted = decide("sst", raw_scores(model, "sst", sst_train, wrapper, rows=rows), cosine=False).values
    metrics: dict[str, float | None] = {"train_sst": accuracy(sst_train.labels[rows], fitted)}
    for task, split in dev.items():
        assert split.labels is not None
        values = decide(task, raw_scores(model, task, split, wrapper), cosine=sts_cosine, clamp=clamp).values
        try:
            metrics[f"dev_{task}"] = (pearson if task == "sts" else accuracy)(split.labels, values)
        except MtbertError:  # Pearson's r of constant predictions
            metrics[f"dev_{task}"] = None
    scores = [metrics[f"dev_{task}"] for task in ("sst", "quora", "sts")]
    metrics["dev_overall"] = None if None in scores else overall(*scores)  # type: ignore[arg-type]
    return metrics
