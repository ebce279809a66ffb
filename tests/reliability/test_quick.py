"""The quick tier of every figure: small numbers, all promises kept, every planted bug caught."""

import pytest

from tests.reliability.__main__ import SEED
from tests.reliability.files import FILES, run


@pytest.mark.parametrize("name", FILES)
def test_every_promise_is_kept_and_every_planted_bug_caught(name: str) -> None:
    for trial in run(name, quick=True, seed=SEED):
        assert trial.ok, f"figure {trial.figure}: {trial}"
