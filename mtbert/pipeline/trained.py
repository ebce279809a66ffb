"""Which folders hold a trained model, found without torch: the shell's completion waits for it."""

import json
from pathlib import Path

from mtbert.pipeline.paths import MODELS


def tasks_of(folder: Path) -> list[str]:
    """The tasks of the trained model in a folder; none if there is no such model."""
    try:
        return list(json.loads((folder / "config.json").read_bytes())["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def trained_runs() -> list[str]:
    """The runs that have a trained model in ./models."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json") if tasks_of(path.parent))
