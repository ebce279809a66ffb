"""Reading what the evaluate stage wrote."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mtbert.errors import MtbertError


def metrics(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/metrics.json: scores, parameter counts and what was trained on.

    Raises:
        MtbertError: the file is missing or damaged; names the command that writes it.
    """
    return _json(results / run / "metrics.json", run)


def record(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/record.json: machine, precision, threads and time of the training.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    return _json(results / run / "record.json", run)


def examples(results: Path, run: str, task: str, split: str = "dev") -> pd.DataFrame:
    """A per-example table; text stays text (`None`, `NA`), label, prediction and score are numbers.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = results / run / "examples" / f"{task}-{split}.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", lineterminator="\n")
        for column in ("label", "prediction", "score"):
            table[column] = table[column].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None
    return table


def history(results: Path, run: str) -> pd.DataFrame:
    """A row per epoch, epoch 0 being the model before training.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = results / run / "history.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None


def _json(path: Path, run: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None
    return found
