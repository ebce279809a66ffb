"""Reading results: every file is verified first, and a point of a learning curve knows its number of examples."""

import json
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.report import results as read


def test_every_file_is_verified(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(folder: Path, *names: str) -> None:
        raise MtbertError(f"{folder.name}: {', '.join(names)} changed")

    monkeypatch.setattr(read, "check_seal", check)
    run = "best_performance"
    with pytest.raises(MtbertError, match=r"best_performance: metrics\.json changed"):
        read.metrics(results, run)
    with pytest.raises(MtbertError, match=r"best_performance: history\.csv changed"):
        read.history(results, run)
    with pytest.raises(MtbertError, match=r"best_performance: examples/sst-dev\.csv changed"):
        read.examples(results, run, "sst")


def test_short_epochs_are_watched_on_fewer_examples(results: Path) -> None:
    """2 steps of batch 8 and three tasks: 2 of the 5 dev examples."""
    path = results / "best_performance/record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"]["epoch_end"] = 2
    path.write_text(json.dumps(record), encoding="utf-8")
    assert read.watched_examples(results, "best_performance", "dev") == 2
