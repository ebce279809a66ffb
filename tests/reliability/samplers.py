"""Figure 11: samplers draw with p ∝ size^α, neither lose nor repeat a row within a pass, and stop at the right step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.stats import chisquare

from mtbert.training import sampling
from mtbert.training.sampling import epoch_schedule
from tests.reliability.trial import Tally
from tests.training.test_sampling import fault

EXPONENTS: dict[str | float, float] = {"proportional": 1.0, "square_root": 0.5, "balanced": 0.0, 0.75: 0.75, 2.0: 2.0}
RULES = ("sequential", "round_robin", *EXPONENTS)
LEAST_P = 0.001


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """1,000 random triples of sizes with each sampler and stop rule, and one χ² test of a long schedule per sampler."""
    tally = Tally(11, "samplers", "χ²: p > .001; nothing lost or repeated; stop rules", seed)
    triples = 40 if quick else 1000
    for what, wrong in _checked(triples, seed):
        tally.trial(not wrong, f"{what}: {wrong}")
    for bug, part, plant in PLANTED:
        with patch.object(sampling, part, plant(getattr(sampling, part))):
            tally.control(any(wrong for _, wrong in _checked(40, seed)), bug)
    tally.note = f"{triples:,} triples of sizes, {len(RULES)} samplers, both ways to end an epoch"
    return [tally]


def _checked(triples: int, seed: int) -> Any:
    """Yields (description, what is wrong or nothing)."""
    rng = np.random.default_rng(seed)
    for n in range(triples):
        sizes = dict(zip(("sst", "quora", "sts"), map(int, rng.integers(1, 400, 3)), strict=True))
        batch = int(rng.integers(1, 33))
        steps = int(rng.integers(1, 200))
        for sampler in RULES:
            for end in ("depletion", steps):
                schedule = epoch_schedule(sizes, batch, sampler, end, seed, n)
                yield f"{sampler}, {end}, {sizes}, batches of {batch}", fault(schedule, sizes, batch, sampler, end)
    sizes = {"sst": 8544, "quora": 141498, "sts": 6040}  # the course's
    for sampler, exponent in EXPONENTS.items():
        order = [draw.task for draw in epoch_schedule(sizes, 64, sampler, 20_000, seed, 1)]
        weights = np.array([size**exponent for size in sizes.values()])
        counts = [order.count(task) for task in sizes]
        p = chisquare(counts, weights / weights.sum() * len(order)).pvalue
        yield f"χ² of {sampler}", "" if p > LEAST_P else f"p = {p:.2g} for {counts}"


Plant = Callable[[Any], Any]


def _with_replacement(_real: Any) -> Any:
    def batches(size: int, batch_size: int, key: list[int]) -> Any:
        rng = np.random.default_rng(key)
        while True:
            yield rng.integers(0, size, min(batch_size, size))

    return batches


def _last_batch_lost(_real: Any) -> Any:
    def batches(size: int, batch_size: int, key: list[int]) -> Any:
        passes = 0
        while True:
            order = np.random.default_rng([*key, passes]).permutation(size)
            for start in range(0, max(1, size - batch_size + 1), batch_size):
                yield order[start : start + batch_size]
            passes += 1

    return batches


PLANTED: list[tuple[str, str, Plant]] = [
    ("rows drawn with replacement", "_batches", _with_replacement),
    ("the last, smaller batch lost", "_batches", _last_batch_lost),
    ("another exponent", "probabilities", lambda real: lambda sizes, exponent: real(sizes, exponent + 0.1)),
    (
        "one batch too many",
        "_task_order",
        lambda real: lambda sizes, *rest: (real(sizes, *rest) + list(sizes))[: len(real(sizes, *rest)) + 1],
    ),
    ("one batch too few", "_task_order", lambda real: lambda *arguments: real(*arguments)[:-1]),
    ("tasks in another order", "_task_order", lambda real: lambda *arguments: real(*arguments)[::-1]),
    (
        "shares by rounding down",
        "_shares",
        lambda real: lambda sizes, batches, steps: real(sizes, batches, steps and steps - 1),
    ),
]
