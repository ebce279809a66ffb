"""The names that the shell offers for an argument: Typer calls these functions when Tab is pressed.

They import no torch and no settings, since the user waits, and a missing or faulty file offers nothing: a completion cannot show an error.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError

MODELS = Path("models")


def keys(section: str) -> Callable[[Any], list[str]]:
    """A completion by the keys of a section of the project's params.yaml, such as `runs`."""

    def complete(ctx: Any) -> list[str]:
        from mtbert.yamlfile import read_yaml  # 30 ms that every command would pay

        try:
            return list(read_yaml((ctx.params.get("project") or Path()) / "params.yaml")[section])
        except (MtbertError, KeyError, TypeError):
            return []

    return complete


def models() -> list[str]:
    """The runs that have a trained model in ./models."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json") if _tasks(path.parent))


def tasks(ctx: Any) -> list[str]:
    """The tasks of the model that the command names by its folder or its run."""
    model = ctx.params.get("model") or ""
    return _tasks(Path(model)) or _tasks(MODELS / model)


def _tasks(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / "config.json").read_bytes())["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
