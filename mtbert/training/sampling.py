"""Which task's batch comes next (section 4.3): an epoch's schedule is a pure function of sizes, lengths, seed and epoch."""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from mtbert.errors import MtbertError
from mtbert.training.recipe import EpochEnd, TokenCount

# The three sampling-based methods differ in the exponent of p_i ~ |D_i| ** exponent (Table 3).
EXPONENTS = {"proportional": 1.0, "square_root": 0.5, "balanced": 0.0}
SAMPLERS = ("sequential", "round_robin", *EXPONENTS, "annealed", "joint")


class Draw(NamedTuple):
    """A batch: the task, and the rows of its training split."""

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
    """The exponent of a sampling-based method; None for sequential, round_robin and joint, and for annealed, which has many."""
    return EXPONENTS.get(sampler) if isinstance(sampler, str) else float(sampler)


def sampler_in(sampler: str | float, epoch: int, epochs: int) -> str | float:
    """The sampler of one epoch, counted from 0: for annealed an exponent, for any other sampler itself.

    The annealed exponent falls evenly from 1 in the first epoch to 0.2 in the last, so that training ends with the tasks nearly
    balanced (Stickland and Murray 2019, BERT and PALs: 1 - 0.8 (e - 1) / (E - 1), where e counts from 1).
    """
    if sampler != "annealed":
        return sampler
    return 1.0 - 0.8 * epoch / (epochs - 1) if epochs > 1 else 1.0


def batches_per_step(sampler: str | float, tasks: int) -> int:
    """How many batches of the schedule a training step takes: for joint one of each task, for any other sampler one."""
    return tasks if sampler == "joint" else 1


# The most steps of a run: its schedule is kept in memory, some 200 bytes a step.
MOST_STEPS = 10_000_000


def schedule(
    sizes: Mapping[str, int],
    batch_size: int,
    sampler: str | float,
    epoch_end: EpochEnd,
    seed: int,
    epochs: int,
    lengths: Mapping[str, np.ndarray] | None = None,
) -> list[list[Draw]]:
    """All batches of a run, by epoch; arguments as for `epoch_schedule`. A step takes `batches_per_step` of them.

    Raises:
        MtbertError: the run has more than MOST_STEPS steps.
    """
    drawn: list[list[Draw]] = []
    length = _expected_steps(sizes, batch_size, epoch_end, lengths, batches_per_step(sampler, len(sizes)))
    for epoch in range(epochs):
        if epochs * length > MOST_STEPS:
            end = epoch_end.model_dump() if isinstance(epoch_end, TokenCount) else epoch_end
            raise MtbertError(
                f"epochs: {epochs} of {length} steps each (epoch_end: {end}) exceed the {MOST_STEPS:,} steps "
                "that a run may have; lower this run's epoch_end or epochs"
            )
        chosen = sampler_in(sampler, epoch, epochs)
        drawn.append(epoch_schedule(sizes, batch_size, chosen, epoch_end, seed, epoch, lengths))
        length = len(drawn[-1]) // batches_per_step(sampler, len(sizes))
    return drawn


def _expected_steps(
    sizes: Mapping[str, int],
    batch_size: int,
    epoch_end: EpochEnd,
    lengths: Mapping[str, np.ndarray] | None,
    per_step: int,
) -> int:
    """About how many steps an epoch has, without drawing it; 0 where the sizes of the datasets bound it."""
    if isinstance(epoch_end, int):
        return epoch_end
    if isinstance(epoch_end, str) or epoch_end.tokens == "one_pass" or lengths is None:
        return 0
    batches = sum(-(-size // batch_size) for size in sizes.values())
    return int(epoch_end.tokens) * batches // sum(int(tokens.sum()) for tokens in lengths.values()) // per_step


def epoch_schedule(
    sizes: Mapping[str, int],
    batch_size: int,
    sampler: str | float,
    epoch_end: EpochEnd,
    seed: int,
    epoch: int,
    lengths: Mapping[str, np.ndarray] | None = None,
) -> list[Draw]:
    """All batches of one epoch, in order.

    Args:
        sizes: training examples per task, in the order of the tasks.
        batch_size: B; the last batch of a pass over a task may be smaller.
        sampler: `sequential` D1 -> D2 -> D3; `round_robin` b1, b2, b3, b1, ..., restarting smaller datasets until the
            largest is depleted; joint, b1, b2, b3 in every step, until any dataset is depleted; or a sampling-based
            method, by name or exponent, until any dataset is depleted. For `annealed` give the exponent of the epoch,
            `sampler_in`.
        epoch_end: `depletion` for the rules above; a number of steps, or `one_pass`, as many as the datasets have batches;
            or a number of tokens, which the last batch reaches. Datasets then restart as needed, and sequential divides
            the steps in proportion to the sizes, or the tokens in proportion to the datasets' tokens. In every case an
            epoch of `one_pass` by sequential takes each dataset exactly once, as by `depletion`. A step of joint has a batch
            of every task, so that `one_pass` has as many batches as the datasets, rounded up to whole steps.
        seed, epoch: seed the random order; equal arguments give equal schedules.
        lengths: the tokens of each training example, by task; read only if `epoch_end` is a number of tokens.
    """
    streams = {
        task: _batches(size, batch_size, [seed, epoch, index]) for index, (task, size) in enumerate(sizes.items())
    }
    rng = np.random.default_rng([seed, epoch, len(sizes)])
    if isinstance(epoch_end, TokenCount):
        assert lengths is not None, "tokens cannot be counted without lengths"
        return _draws_of_tokens(sizes, sampler, epoch_end, lengths, streams, rng)
    return [Draw(task, next(streams[task])) for task in _task_order(sizes, batch_size, sampler, epoch_end, rng)]


def _draws_of_tokens(
    sizes: Mapping[str, int],
    sampler: str | float,
    epoch_end: TokenCount,
    lengths: Mapping[str, np.ndarray],
    streams: Mapping[str, Iterator[np.ndarray]],
    rng: np.random.Generator,
) -> list[Draw]:
    """Batches until they have the number of tokens."""
    tasks = list(sizes)
    # After sequential's turn of a task, this many of `total` parts of the tokens have been drawn.
    turns = dict(zip(tasks, accumulate(int(lengths[task].sum()) for task in tasks), strict=True))
    total = turns[tasks[-1]]
    wanted = total if epoch_end.tokens == "one_pass" else int(epoch_end.tokens)
    chances = None if sampler in ("sequential", "round_robin", "joint") else _chances(sizes, sampler)
    draws: list[Draw] = []
    count = 0
    while count < wanted or len(draws) % batches_per_step(sampler, len(tasks)):
        if chances is not None:
            task = tasks[rng.choice(len(tasks), p=chances)]
        elif sampler in ("round_robin", "joint"):
            task = tasks[len(draws) % len(tasks)]
        else:
            task = next(task for task, end in turns.items() if count * total < wanted * end)
        draws.append(Draw(task, next(streams[task])))
        count += int(lengths[task][draws[-1].rows].sum())
    return draws


def _chances(sizes: Mapping[str, int], sampler: str | float) -> list[float]:
    """The probabilities of a sampling-based method, in the order of the tasks."""
    exponent = sampler_exponent(sampler)
    if exponent is None:
        raise ValueError(f"unknown sampler {sampler!r}")
    return list(probabilities(sizes, exponent).values())


def _task_order(
    sizes: Mapping[str, int], batch_size: int, sampler: str | float, epoch_end: str | int, rng: np.random.Generator
) -> list[str]:
    tasks = list(sizes)
    batches = {task: -(-size // batch_size) for task, size in sizes.items()}
    if sampler == "sequential" and epoch_end == "one_pass":
        epoch_end = "depletion"
    one_pass = sum(batches.values())
    if sampler == "joint":
        whole = {"depletion": min(batches.values()), "one_pass": -(-one_pass // len(tasks))}
        return tasks * (whole[epoch_end] if isinstance(epoch_end, str) else epoch_end)
    steps = None if epoch_end == "depletion" else one_pass if epoch_end == "one_pass" else int(epoch_end)
    if sampler == "sequential":
        return [task for task, count in _shares(sizes, batches, steps).items() for _ in range(count)]
    if sampler == "round_robin":
        # Among equally large datasets the last one, so that all of them are depleted.
        largest = max(reversed(tasks), key=lambda task: batches[task])
        if steps is None:
            steps = (batches[largest] - 1) * len(tasks) + tasks.index(largest) + 1
        return [tasks[step % len(tasks)] for step in range(steps)]
    chances = _chances(sizes, sampler)
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
