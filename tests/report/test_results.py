"""Reading results: every file is verified first, and a point of a learning curve knows its number of examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.report import results as read
from tests.report.conftest import edited

RUN = "best_performance"
READERS: dict[str, Callable[[Path], Any]] = {
    "metrics.json": lambda results: read.metrics(results, RUN),
    "record.json": lambda results: read.record(results, RUN),
    "history.csv": lambda results: read.history(results, RUN, ("dev_sst",)),
    "examples/sst-dev.csv": lambda results: read.examples(results, RUN, "sst"),
}


@pytest.mark.parametrize("file", READERS)
def test_every_file_is_verified(results: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    def check(folder: Path, *names: str) -> None:
        raise MtbertError(f"{folder.name}: {', '.join(names)} changed")

    monkeypatch.setattr(read, "check_seal", check)
    with pytest.raises(MtbertError, match=f"best_performance: {file} changed"):
        READERS[file](results)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("metrics.json", "[]", "not a JSON object"),
        ("metrics.json", '{"dev": ', "Expecting value"),
        ("metrics.json", '{"dev": {}}', "no test and no parameters and no training in it"),
        ("metrics.json", '{"dev": 1, "test": {}, "parameters": {}, "training": {}}', "no dev in it"),
        ("record.json", "{}", "no device and no threads and no precision in it"),
        ("history.csv", "", "no header"),
        ("history.csv", "epoch,train_sst\n0,0.1\n", "no dev_sst in it"),
        ("examples/sst-dev.csv", "id,label\n1,2\n", "no prediction and no score in it"),
        ("examples/sst-dev.csv", "id,sentence1,label,prediction,score\na,s,,1,1\n", "could not convert"),
    ],
)
def test_damaged_and_missing_files_name_the_command(results: Path, file: str, content: str, reason: str) -> None:
    path = results / RUN / file
    path.write_text(content)
    remedy = "run `dvc repro --force --single-item evaluate@best_performance`"
    with pytest.raises(MtbertError, match=rf"{file}: cannot be read \({reason}.*\); {remedy}"):
        READERS[file](results)
    path.unlink()
    with pytest.raises(MtbertError, match=f"{file}: not found; run `dvc repro evaluate@best_performance`"):
        READERS[file](results)


def test_short_epochs_are_watched_on_fewer_examples(results: Path) -> None:
    """2 steps of batch 8 and three tasks: 2 of the 5 dev examples."""
    with edited(results / RUN / "record.json") as record:
        record["settings"]["epoch_end"] = 2
    assert read.watched_examples(results, RUN, "dev") == 2
