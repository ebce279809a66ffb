"""The course's prediction files, to the byte."""

from pathlib import Path

import pytest

from mtbert.evaluation.leaderboard import write_predictions
from mtbert.tasks.paper import QUORA, SST, STS


def test_exact_bytes(tmp_path: Path) -> None:
    cases = [
        (SST, "dev", [3.0, 0.0], "sst-dev-output.csv", "id \t Predicted_Sentiment \na1 , 3 \nb2 , 0 \n"),
        (QUORA, "test", [1.0, 0.0], "para-test-output.csv", "id \t Predicted_Is_Paraphrase \na1 , 1.0 \nb2 , 0.0 \n"),
        (STS, "dev", [2.75, 0.1], "sts-dev-output.csv", "id \t Predicted_Similiary \na1 , 2.75 \nb2 , 0.1 \n"),
    ]
    for task, split, values, name, content in cases:
        path = write_predictions(tmp_path, task, split, ["a1", "b2"], values)
        assert path.name == name
        assert path.read_bytes() == content.encode()


def test_ids_and_values_must_match(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_predictions(tmp_path, SST, "dev", ["a"], [1.0, 2.0])
    assert not list(tmp_path.iterdir())
