"""Schedules: exact for small sizes, with the paper's probabilities, stop rules, and nothing lost or repeated."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtbert.errors import MtbertError
from mtbert.training import sampling
from mtbert.training.recipe import TokenCount
from mtbert.training.sampling import (
    Draw,
    batches_per_step,
    epoch_schedule,
    probabilities,
    sampler_exponent,
    sampler_in,
    schedule,
)

PAPER = {"sst": 8544, "quora": 283_003, "sts": 6040}
SMALL = {"sst": 5, "quora": 7, "sts": 3}  # in batches of 2: 3, 4 and 2
SAMPLERS: list[str | float] = ["sequential", "round_robin", "proportional", "square_root", "balanced", 0.75]


def tasks(schedule: list[Draw]) -> list[str]:
    return [draw.task for draw in schedule]


def passes(schedule: list[Draw], size: int, task: str) -> list[list[int]]:
    """The rows of a task in order, cut into passes; a batch never crosses a pass."""
    found: list[list[int]] = [[]]
    for draw in schedule:
        if draw.task == task:
            if len(found[-1]) == size:
                found.append([])
            found[-1] += draw.rows.tolist()
            assert len(found[-1]) <= size
    return found


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [(1.0, [0.0287, 0.9510, 0.0203]), (0.5, [0.1316, 0.7577, 0.1107]), (0.0, [1 / 3, 1 / 3, 1 / 3])],
)
def test_table_3_s_probabilities(exponent: float, expected: list[float]) -> None:
    chances = probabilities(PAPER, exponent)
    assert list(chances) == list(PAPER)
    assert list(chances.values()) == pytest.approx(expected, abs=5e-5)
    assert sum(chances.values()) == pytest.approx(1)


def test_exponents_by_name() -> None:
    assert [sampler_exponent(name) for name in SAMPLERS] == [None, None, 1.0, 0.5, 0.0, 0.75]
    assert list(probabilities(PAPER, 400.0).values()) == [0, 1, 0], "large exponents stay finite"


def test_sequential_is_one_task_after_the_other() -> None:
    schedule = epoch_schedule(SMALL, 2, "sequential", "depletion", 0, 0)
    assert tasks(schedule) == ["sst"] * 3 + ["quora"] * 4 + ["sts"] * 2
    assert [len(draw.rows) for draw in schedule] == [2, 2, 1, 2, 2, 2, 1, 2, 1]


def test_round_robin_takes_turns_until_the_largest_is_depleted() -> None:
    schedule = epoch_schedule(SMALL, 2, "round_robin", "depletion", 0, 0)
    assert tasks(schedule) == ["sst", "quora", "sts"] * 3 + ["sst", "quora"]
    assert len(passes(schedule, 7, "quora")) == 1
    assert [len(rows) for rows in passes(schedule, 5, "sst")] == [5, 2]
    assert [len(rows) for rows in passes(schedule, 3, "sts")] == [3, 2]


# Two steps have 2 · 2, 2 · 4 and 2 + 1 examples, of 1, 2 and 3 tokens.
@pytest.mark.parametrize(
    ("epoch_end", "steps"),
    [("depletion", 2), ("one_pass", 3), (5, 5), (TokenCount(tokens=21), 2), (TokenCount(tokens=22), 3)],
)
def test_a_joint_step_has_a_batch_of_every_task(epoch_end: Any, steps: int) -> None:
    lengths = {task: np.full(size, n + 1) for n, (task, size) in enumerate(SMALL.items())}
    epoch = epoch_schedule(SMALL, 2, "joint", epoch_end, 0, 0, lengths)
    assert tasks(epoch) == ["sst", "quora", "sts"] * steps
    assert len(epoch) == steps * batches_per_step("joint", 3) and batches_per_step("round_robin", 3) == 1


@pytest.mark.parametrize("sampler", ["proportional", "square_root", "balanced", 2.0])
def test_draws_follow_the_probabilities(sampler: str | float) -> None:
    sizes, count = {"sst": 90, "quora": 300, "sts": 60}, 6000
    exponent = sampler_exponent(sampler)
    assert exponent is not None
    drawn = Counter(tasks(epoch_schedule(sizes, 64, sampler, count, 3, 1)))
    expected = {task: count * chance for task, chance in probabilities(sizes, exponent).items()}
    chi_square = sum((drawn[task] - expected[task]) ** 2 / expected[task] for task in sizes)
    assert chi_square < 13.8, "0.1% of fair draws exceed this with two degrees of freedom"


def test_successive_draws_are_independent() -> None:
    order = np.array(tasks(epoch_schedule({"sst": 9, "quora": 9, "sts": 9}, 4, "balanced", 6000, 1, 1)))
    assert abs((order[1:] == order[:-1]).mean() - 1 / 3) < 0.025


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 10, 15, 37])
def test_a_fixed_number_of_steps(sampler: str | float, steps: int) -> None:
    schedule = epoch_schedule(SMALL, 2, sampler, steps, 0, 2)
    assert len(schedule) == steps
    if sampler == "round_robin":
        assert tasks(schedule) == (["sst", "quora", "sts"] * 13)[:steps]


@pytest.mark.parametrize(
    ("steps", "shares"), [(15, (5, 7, 3)), (10, (3, 5, 2)), (1, (0, 1, 0)), (2, (1, 1, 0)), (30, (10, 14, 6))]
)
def test_sequential_shares_fixed_steps_by_size(steps: int, shares: tuple[int, int, int]) -> None:
    order = tasks(epoch_schedule(SMALL, 2, "sequential", steps, 0, 0))
    assert order == [task for task, count in zip(SMALL, shares, strict=True) for _ in range(count)]


def test_annealing_goes_from_proportional_to_nearly_balanced() -> None:
    assert [sampler_in("annealed", epoch, 5) for epoch in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert sampler_in("annealed", 0, 1) == 1 and sampler_in("balanced", 3, 5) == "balanced"
    run = schedule(SMALL, 2, "annealed", "depletion", 3, 3)
    assert [flat(epoch) for epoch in run] == [
        flat(epoch_schedule(SMALL, 2, exponent, "depletion", 3, n))
        for n, exponent in enumerate((1.0, 1.0 - 0.8 / 2, 1.0 - 0.8))
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_pass_is_as_long_as_all_datasets(sampler: str | float) -> None:
    assert len(epoch_schedule(SMALL, 2, sampler, "one_pass", 0, 2)) == 3 + 4 + 2


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({task: st.lists(st.integers(1, 30), min_size=1, max_size=40) for task in PAPER}),
    st.integers(1, 9),
    st.sampled_from(SAMPLERS),
    st.one_of(st.just("one_pass"), st.integers(1, 3000)),
    st.integers(0, 2**32 - 1),
)
def test_an_epoch_ends_with_the_batch_that_reaches_its_tokens(
    examples: dict[str, list[int]], batch_size: int, sampler: str | float, tokens: str | int, seed: int
) -> None:
    lengths = {task: np.array(counts) for task, counts in examples.items()}
    sizes = {task: len(counts) for task, counts in examples.items()}
    end = TokenCount.model_validate({"tokens": tokens})
    epoch = epoch_schedule(sizes, batch_size, sampler, end, seed, 1, lengths)
    counts = [int(lengths[draw.task][draw.rows].sum()) for draw in epoch]
    totals = {task: sum(found) for task, found in examples.items()}
    wanted = sum(totals.values()) if tokens == "one_pass" else int(tokens)
    assert sum(counts[:-1]) < wanted <= sum(counts)
    if sampler != "sequential":
        assert not fault(epoch, sizes, batch_size, sampler, len(epoch))
    elif tokens == "one_pass":
        one = flat(epoch_schedule(sizes, batch_size, sampler, "depletion", seed, 1))
        assert flat(epoch) == one == flat(epoch_schedule(sizes, batch_size, sampler, "one_pass", seed, 1))
    else:
        assert tasks(epoch) == sorted(tasks(epoch), key=list(sizes).index)
        end_of_turn = 0.0
        for task, total in totals.items():
            end_of_turn += wanted * total / sum(totals.values())
            found = sum(
                count
                for draw, count in zip(epoch, counts, strict=True)
                if list(sizes).index(draw.task) <= list(sizes).index(task)
            )
            assert end_of_turn - 1e-6 <= found < end_of_turn + batch_size * 30


def test_tokens_are_drawn_by_the_probabilities() -> None:
    sizes = {"sst": 90, "quora": 300, "sts": 60}
    lengths = {task: np.full(size, 10) for task, size in sizes.items()}
    order = tasks(epoch_schedule(sizes, 10, "proportional", TokenCount(tokens=400_000), 3, 1, lengths))
    for task, chance in probabilities(sizes, 1.0).items():
        assert abs(order.count(task) / len(order) - chance) < 4 * (chance * (1 - chance) / len(order)) ** 0.5


def fault(schedule: list[Draw], sizes: dict[str, int], batch: int, sampler: str | float, end: str | int) -> str:
    """What is wrong with an epoch: rows lost or repeated within a pass, a task out of order, a wrong end. Empty if nothing is."""
    order = tasks(schedule)
    batches = {task: -(-size // batch) for task, size in sizes.items()}
    counts = {task: order.count(task) for task in sizes}
    for task, size in sizes.items():
        rows = [draw.rows for draw in schedule if draw.task == task]
        for start in range(0, len(rows), batches[task]):
            one_pass = rows[start : start + batches[task]]
            seen = np.concatenate(one_pass)
            if len(np.unique(seen)) != len(seen) or seen.min() < 0 or seen.max() >= size:
                return f"a pass over {task} repeats a row"
            if len(one_pass) == batches[task] and len(seen) != size:
                return f"a pass over {task} loses {size - len(seen)} rows"
            if any(len(part) != batch for part in one_pass[:-1]) or not 1 <= len(one_pass[-1]) <= batch:
                return f"a batch of {task} has another size"
    if end != "depletion" and len(schedule) != end:
        return f"{len(schedule)} steps"
    if sampler == "sequential":
        if [task for n, task in enumerate(order) if n == 0 or order[n - 1] != task] != [t for t in sizes if counts[t]]:
            return "tasks are not one after the other"
        shares = (
            batches if end == "depletion" else {t: int(end) * size / sum(sizes.values()) for t, size in sizes.items()}
        )
        if any(abs(counts[task] - shares[task]) >= 1 for task in sizes):
            return f"{counts} batches for shares of {shares}"
    elif sampler == "round_robin":
        if order != [list(sizes)[n % 3] for n in range(len(order))]:
            return "not in turn"
        full = [task for task in sizes if batches[task] == max(batches.values())]
        if end == "depletion" and (counts[full[-1]] != batches[full[-1]] or order[-1] != full[-1]):
            return "does not stop when the largest is depleted"
    elif end == "depletion":
        depleted = [task for task in sizes if counts[task] >= batches[task]]
        if depleted != [order[-1]] or counts[order[-1]] != batches[order[-1]]:
            return "does not stop when the first is depleted"
    return ""


sizes_of = st.fixed_dictionaries({task: st.integers(1, 40) for task in PAPER})


@settings(max_examples=150, deadline=None)
@given(
    sizes_of,
    st.integers(1, 9),
    st.sampled_from(SAMPLERS),
    st.one_of(st.just("depletion"), st.integers(1, 60)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 50),
)
@example({"sst": 33, "quora": 36, "sts": 34}, 4, "round_robin", "depletion", 0, 0)  # batch counts tie
def test_an_epoch_follows_its_sampler_s_rules(
    sizes: dict[str, int], batch_size: int, sampler: str | float, epoch_end: str | int, seed: int, epoch: int
) -> None:
    """`make reliability` tests the same with planted bugs and many more sizes."""
    schedule = epoch_schedule(sizes, batch_size, sampler, epoch_end, seed, epoch)
    assert not fault(schedule, sizes, batch_size, sampler, epoch_end)


def flat(schedule: list[Draw]) -> list[tuple[str, list[int]]]:
    return [(draw.task, draw.rows.tolist()) for draw in schedule]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_schedule_is_a_function_of_seed_and_epoch(sampler: str | float) -> None:
    sizes = {"sst": 40, "quora": 60, "sts": 30}

    def schedule(seed: int, epoch: int) -> list[tuple[str, list[int]]]:
        return flat(epoch_schedule(sizes, 4, sampler, "depletion", seed, epoch))

    first = schedule(1, 2)
    np.random.seed(5)
    assert schedule(1, 2) == first
    assert schedule(2, 2) != first
    assert schedule(1, 3) != first
    assert schedule(2, 1) != first


def test_passes_and_tasks_have_their_own_orders() -> None:
    schedule = epoch_schedule({"sst": 30, "quora": 30}, 10, "round_robin", 12, 0, 0)
    orders = [*passes(schedule, 30, "sst"), *passes(schedule, 30, "quora")]
    assert len(orders) == 4
    assert len({tuple(order) for order in orders}) == 4


def test_one_task_alone() -> None:
    for sampler in SAMPLERS:
        schedule = epoch_schedule({"sst": 5}, 2, sampler, "depletion", 0, 0)
        assert tasks(schedule) == ["sst"] * 3
        assert sorted(np.concatenate([draw.rows for draw in schedule]).tolist()) == list(range(5))


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'sqare_root'"):
        epoch_schedule(SMALL, 2, "sqare_root", "depletion", 0, 0)


def test_a_run_s_schedule_is_that_of_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_STEPS", 27)
    run = schedule(SMALL, 2, "sequential", "depletion", 3, 3)
    assert [tasks(epoch) for epoch in run] == [
        tasks(epoch_schedule(SMALL, 2, "sequential", "depletion", 3, n)) for n in range(3)
    ]
    monkeypatch.setattr(sampling, "MOST_STEPS", 26)
    with pytest.raises(MtbertError, match=r"epochs: 3 of 9 steps each \(epoch_end: depletion\).* 26 steps"):
        schedule(SMALL, 2, "sequential", "depletion", 3, 3)


@pytest.mark.parametrize(("epoch_end", "epochs"), [(10**10, 1), (10**6, 10**6), ("depletion", 10**12)])
def test_too_many_steps_are_refused_at_once(epoch_end: str | int, epochs: int) -> None:
    with pytest.raises(MtbertError, match=r"exceed the 10,000,000 steps .*lower this run's epoch_end or epochs"):
        schedule(SMALL, 2, "square_root", epoch_end, 3, epochs)


def test_too_many_tokens_are_refused_at_once() -> None:
    lengths = {task: np.full(size, 10) for task, size in SMALL.items()}
    with pytest.raises(MtbertError, match=r"exceed the 10,000,000 steps .*lower this run's epoch_end or epochs"):
        schedule(SMALL, 2, "square_root", TokenCount(tokens=10**12), 3, 1, lengths)
