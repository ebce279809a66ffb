"""The tokens still to be trained on: runs trained with the present plan do not count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.params import load_params
from mtbert.pipeline.ahead import overall
from stages import convert, train

NAMES = ["baseline", "key_update_1", "sampler_sequential"]


def test_trained_runs_do_not_count(project: Path, change: Callable[..., None]) -> None:
    inherited = ("key_update_1", "key_update_2", "key_update_3", "best_performance", "sampler_sequential")
    change(only=["baseline", *inherited])
    done, total, left = overall("key_update_1")
    assert (done, total) == (1, 6), "baseline is trained"
    assert overall("baseline").done_runs == 0, "the run itself counts as running"
    convert.main("sampler_sequential")
    train.main("sampler_sequential")
    config = json.loads((project / "models/sampler_sequential/config.json").read_text(encoding="utf-8"))
    after = overall("key_update_1")
    assert after.done_runs == 2
    assert left - after.remaining_tokens == pytest.approx(config["training"]["tokens"], rel=0.05)


def test_a_run_of_an_earlier_plan_is_to_be_trained_again(project: Path, change: Callable[..., None]) -> None:
    before = overall("key_update_1")
    change(baseline={"epochs": 3})
    after = overall("key_update_1")
    assert (before.done_runs, after.done_runs) == (1, 0)
    assert after.remaining_tokens > before.remaining_tokens
    (project / "models/baseline/record.json").write_text("{", encoding="utf-8")
    assert overall("key_update_1") == after
    assert len(load_params().runs) == after.total_runs


def test_two_passes_count_twice_and_rows_that_are_held_out_do_not(change: Callable[..., None]) -> None:
    def left(**settings: Any) -> int:
        change(only=["baseline", "key_update_1"], key_update_1=settings)
        return overall("baseline").remaining_tokens

    once = left()
    assert left(r_drop=1.0) == pytest.approx(2 * once, abs=1)
    assert left(optimization={"hold_out": 0.5}) == pytest.approx(once / 2, rel=0.2)
