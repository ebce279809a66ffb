"""The names that the shell offers for an argument: Typer calls these functions when Tab is pressed.

They import no torch and no settings, since the user waits, and a missing or faulty file offers nothing: a completion cannot show an error.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.pipeline.paths import MODELS
from mtbert.pipeline.trained import tasks_of


def keys(section: str) -> Callable[[Any], list[str]]:
    """A completion by the keys of a section of the project's params.yaml, such as `runs`."""

    def complete(ctx: Any) -> list[str]:
        from mtbert.yamlfile import read_yaml  # 30 ms that every command would pay

        try:
            return list(read_yaml((ctx.params.get("project") or Path()) / "params.yaml")[section])
        except (MtbertError, KeyError, TypeError):
            return []

    return complete


def tasks(ctx: Any) -> list[str]:
    """The tasks of the model that the command names by its folder or its run."""
    model = ctx.params.get("model") or ""
    return tasks_of(Path(model)) or tasks_of(MODELS / model)
