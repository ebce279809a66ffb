"""The quick tier: few trials of every figure; all must pass, and every planted bug must be caught.

By default only the files that take a few seconds run, since unit tests cover the others' subjects. `pytest -m slow`
runs them all.
"""

from pathlib import Path

import pytest

from tests.reliability.__main__ import SEED
from tests.reliability.clones import PLANTED
from tests.reliability.files import FILES, run

FAST = ("data", "dora", "fuzz", "hostile", "samplers", "saves")


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in FILES if name not in FAST)]
)
def test_every_promise_is_kept_and_every_planted_bug_caught(name: str) -> None:
    for tally in run(name, quick=True, seed=SEED):
        assert tally.ok, tally


def test_the_code_in_which_clones_plant_bugs_exists(root: Path) -> None:
    for plant in PLANTED:
        assert (root / plant.file).read_text(encoding="utf-8").count(plant.old) == 1, plant.bug
