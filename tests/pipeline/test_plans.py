"""A plan that another command rewrites while a stage runs."""

import json
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.pipeline import plans


def test_a_plan_that_changed_meanwhile_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plans, "_read", {})
    path = plans.PLAN / "train/baseline.json"
    path.parent.mkdir(parents=True)
    text = json.dumps({"settings": {"seed": 1}, "code": {}})
    path.write_text(text, encoding="utf-8")
    plans.planned("train", "baseline")
    plans.check_unchanged()
    path.write_text(text.replace("1", "2"), encoding="utf-8")
    assert plans.planned("train", "baseline")["settings"] == {"seed": 2}, "read again by the stage"
    for _ in range(2):
        with pytest.raises(
            MtbertError, match=r"^build/plan/train/baseline\.json: changed while this stage ran, .* again$"
        ):
            plans.check_unchanged()
        path.unlink(missing_ok=True)
