"""Which task's batch comes next (section 4.3): an epoch's schedule is a pure function of sizes, seed and epoch."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mtbert.errors import MtbertError

# The three sampling-based methods differ in the exponent of p_i ~ |D_i| ** exponent (Table 3).
EXPONENTS = {"proportional": 1.0, "square_root": 0.5, "balanced": 0.0}
SAMPLERS = ("sequential", "round_robin", *EXPONENTS)


class Draw(NamedTuple):
    """One training step's batch: the task, and the rows of its training split."""

    task: str
    rows: np.ndarray


def probabilities(sizes: Mapping[str, int], exponent: float) -> dict[str, float]:
    """p_i = |D_i|^exponent / sum_j |D_j|^exponent, by task; |D_i| is a task's number of training examples."""
    largest = max(sizes.values())
    # Divide by the largest first, so that large exponents do not overflow.
    powers = {task: (size / largest) ** exponent for task, size in sizes.items()}
    total = sum(powers.values())
    return {task: power / total for task, power in powers.items()}


def sampler_exponent(sampler: str | float) -> float | None:
    """The exponent of a sampling-based method; None for sequential and round_robin."""
    return EXPONENTS.get(sampler) if isinstance(sampler, str) else float(sampler)


# The most steps of a run: its schedule is kept in memory, some 200 bytes a step.
MOST_STEPS = 10_000_000


def schedule(
    sizes: Mapping[str, int], batch_size: int, sampler: str | float, epoch_end: str | int, seed: int, epochs: int
) -> list[list[Draw]]:
    """All batches of a run, by epoch; arguments as for `epoch_schedule`.

    Raises:
        MtbertError: the run has more than MOST_STEPS steps.
    """
    drawn: list[list[Draw]] = []
    length = 0 if epoch_end == "depletion" else int(epoch_end)
    for epoch in range(epochs):
        if epochs * length > MOST_STEPS:
            raise MtbertError(
                f"epochs: {epochs} of {length} steps each (epoch_end: {epoch_end}) exceed the {MOST_STEPS:,} steps "
                "that a run may have; lower this run's epoch_end or epochs"
            )
        drawn.append(epoch_schedule(sizes, batch_size, sampler, epoch_end, seed, epoch))
        length = len(drawn[-1])
    return drawn


def epoch_schedule(
    sizes: Mapping[str, int], batch_size: int, sampler: str | float, epoch_end: str | int, seed: int, epoch: int
) -> list[Draw]:
    """All batches of one epoch, in order.

    Args:
        sizes: training examples per task, in the order of the tasks.
        batch_size: B; the last batch of a pass over a task may be smaller.
        sampler: `sequential` D1 -> D2 -> D3; `round_robin` b1, b2, b3, b1, ..., restarting smaller datasets until the
            largest is depleted; or a sampling-based method, by name or exponent, until any dataset is depleted.
        epoch_end: `depletion` for the rules above, or a number of steps. Datasets then restart as needed, and
            sequential divides the steps in proportion to the sizes.
        seed, epoch: seed the random order; equal arguments give equal schedules.
    """
    streams = {
        task: _batches(size, batch_size, [seed, epoch, index]) for index, (task, size) in enumerate(sizes.items())
    }
    order = _task_order(sizes, batch_size, sampler, epoch_end, np.random.default_rng([seed, epoch, len(sizes)]))
    return [Draw(task, next(streams[task])) for task in order]


def _task_order(
    sizes: Mapping[str, int], batch_size: int, sampler: str | float, epoch_end: str | int, rng: np.random.Generator
) -> list[str]:
    tasks = list(sizes)
    batches = {task: -(-size // batch_size) for task, size in sizes.items()}
    steps = None if epoch_end == "depletion" else int(epoch_end)
    if sampler == "sequential":
        return [task for task, count in _shares(sizes, batches, steps).items() for _ in range(count)]
    if sampler == "round_robin":
        # Among equally large datasets the last one, so that all of them are depleted.
        largest = max(reversed(tasks), key=lambda task: batches[task])
        if steps is None:
            steps = (batches[largest] - 1) * len(tasks) + tasks.index(largest) + 1
        return [tasks[step % len(tasks)] for step in range(steps)]
    exponent = sampler_exponent(sampler)
    if exponent is None:
        raise ValueError(f"unknown sampler {sampler!r}")
    chances = list(probabilities(sizes, exponent).values())
    if steps is not None:
        return [tasks[index] for index in rng.choice(len(tasks), size=steps, p=chances)]
    order: list[str] = []
    left = dict(batches)
    while all(left.values()):
        task = tasks[rng.choice(len(tasks), p=chances)]
        left[task] -= 1
        order.append(task)
    return order


def _shares(sizes: Mapping[str, int], batches: Mapping[str, int], steps: int | None) -> dict[str, int]:
    """Steps per task of a sequential epoch: all batches, or `steps` divided by size, with the largest remainders rounded up."""
    if steps is None:
        return dict(batches)
    exact = {task: steps * size / sum(sizes.values()) for task, size in sizes.items()}
    shares = {task: int(share) for task, share in exact.items()}
    by_remainder = sorted(exact, key=lambda task: shares[task] - exact[task])
    for task in by_remainder[: steps - sum(shares.values())]:
        shares[task] += 1
    return shares


def _batches(size: int, batch_size: int, key: list[int]) -> Iterator[np.ndarray]:
    """Batches from endless passes over a dataset; each pass has every row once, in a new random order."""
    passes = 0
    while True:
        order = np.random.default_rng([*key, passes]).permutation(size)
        for start in range(0, size, batch_size):
            yield order[start : start + batch_size]
        passes += 1
