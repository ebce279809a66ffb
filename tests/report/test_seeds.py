"""The paper's steps over seeds."""

from itertools import product

from mtbert.report.claims import BEST, DORA, STEPS
from mtbert.report.seeds import OverPairs, gains_over_seeds
from mtbert.report.statistics import UNPAIRED, Interval, Paired, Statistics

SEEDS = {"old": ["old_2"], "new": ["new_2", "new_3"]}
# new minus old, by their seeds: one surely worse, one undecided.
GAINS = {(1, 1): 0.05, (1, 2): 0.03, (1, 3): 0.09, (2, 1): -0.04, (2, 2): 0.005, (2, 3): 0.02}


def name(run: str, seed: int) -> str:
    return run if seed == 1 else f"{run}_{seed}"


def planted(**others: Paired) -> Statistics:
    """Statistics with intervals of ± 0.01; some pairs are kept in the other order."""
    runs = [*(name("old", seed) for seed in (1, 2)), *(name("new", seed) for seed in (1, 2, 3))]
    pairs = {}
    for (old, new), gain in GAINS.items():
        turned = new == 2
        value = -gain if turned else gain
        first, second = name("old", old), name("new", new)
        pairs[(second, first) if turned else (first, second)] = {
            "overall": others.get(f"{first}_{second}", Paired(value, value - 0.01, value + 0.01, 0.01, 0.005))
        }
    return Statistics({run: {"overall": Interval(0.5, 0.4, 0.6)} for run in runs}, pairs)


def test_each_run_of_the_one_is_compared_with_each_of_the_other() -> None:
    assert gains_over_seeds(planted(), SEEDS, [("new", "old")]) == [OverPairs("new", "old", 6, 4, 1, -0.04, 0.09)]
    assert gains_over_seeds(planted(), {"new": SEEDS["new"]}, [("new", "old")]) == [
        OverPairs("new", "old", 3, 3, 0, 0.03, 0.09)
    ], "one seed of the old"


def test_an_undefined_gain_is_no_pair() -> None:
    found = gains_over_seeds(planted(old_new=UNPAIRED), SEEDS, [("new", "old")])
    assert found == [OverPairs("new", "old", 5, 3, 1, -0.04, 0.09)]


def test_without_seeds_there_is_nothing() -> None:
    assert gains_over_seeds(planted(), {}, [("new", "old")]) == []
    assert gains_over_seeds(planted(), {"new": ["absent"]}, [("new", "old"), ("absent", "old")]) == []


def test_the_steps_are_those_of_table_1_and_the_comparisons_with_best_performance() -> None:
    table_1 = ["baseline", "key_update_1", "key_update_2", "key_update_3", BEST]
    samplers = [f"sampler_{one}" for one in ("sequential", "round_robin", "proportional", "balanced")]
    assert list(STEPS) == [
        *zip(table_1[1:], table_1, strict=False),
        *product([BEST], [DORA, *samplers]),
    ]
