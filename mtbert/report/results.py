"""Reading what the evaluate stage wrote."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mtbert.errors import MtbertError
from mtbert.seal import check_seal
from mtbert.tabular import read_csv

PARTS = ("dev", "test", "parameters", "training")
RECORDED = ("device", "threads", "precision")


def metrics(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/metrics.json: scores, parameter counts and what was trained on.

    Raises:
        MtbertError: the file is missing or damaged; names the command that writes it.
    """
    path = results / run / "metrics.json"
    found = _json(path, run)
    if missing := [part for part in PARTS if not isinstance(found.get(part), dict)]:
        raise MtbertError(f"{path}: no {' and no '.join(missing)} in it; run `dvc repro evaluate@{run}`")
    return found


def record(results: Path, run: str) -> dict[str, Any]:
    """results/RUN/record.json: settings, parent weights, device, precision and threads of the training.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = results / run / "record.json"
    found = _json(path, run)
    if missing := [key for key in RECORDED if key not in found]:
        raise MtbertError(f"{path}: no {' and no '.join(missing)} in it; run `dvc repro evaluate@{run}`")
    return found


def examples(results: Path, run: str, task: str, split: str = "dev") -> pd.DataFrame:
    """A per-example table; text stays text (`None`, `NA`), label, prediction and score are numbers.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = results / run / "examples" / f"{task}-{split}.csv"
    check_seal(results / run, f"examples/{path.name}")
    try:
        table = pd.DataFrame(read_csv(path), dtype=str)
        columns = ["label", "prediction", "score"]
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"no column {', '.join(missing)}")
        table[columns] = table[columns].astype(float)
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None
    return table


def history(results: Path, run: str) -> pd.DataFrame:
    """A row per epoch, epoch 0 being the model before training.

    Raises:
        MtbertError: the file is missing or damaged.
    """
    path = results / run / "history.csv"
    check_seal(results / run, path.name)
    try:
        table = pd.DataFrame(read_csv(path)).apply(pd.to_numeric)
        if missing := [name for name in ("epoch", "train_sst", "dev_sst") if name not in table]:
            raise ValueError(f"no column {', '.join(missing)}")
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None
    return table


def _json(path: Path, run: str) -> dict[str, Any]:
    check_seal(path.parent, path.name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro evaluate@{run}`") from None
    return found
