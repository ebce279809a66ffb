"""The formats that `mtbert export --to` takes, and what they read and give.

To add one, write a file with a function `write(export, folder)` and name it in `FORMATS`. A format's file is imported when it is used.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.errors import MtbertError, nearest
from mtbert.inference.model import TrainedModel

FORMATS = {
    "transformers": "mtbert.export.transformers",
    "sentence-transformers": "mtbert.export.sentence_transformers",
    "peft": "mtbert.export.peft",
    "onnx": "mtbert.export.onnx",
}


class Export(NamedTuple):
    """A model to export.

    Attributes:
        model: with its adapters merged.
        config: the content of its config.json.
        task: the task that the user chose, if any.
    """

    model: TrainedModel
    config: dict[str, Any]
    task: str | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.model.folder.resolve().name

    @property
    def tasks(self) -> list[str]:
        """The chosen task, or all."""
        return [self.task] if self.task else list(self.model.tasks)


def writer(name: str) -> Callable[[Export, Path], list[str]]:
    """The function that writes a format into an empty folder, and says in a line for each thing what it wrote.

    Raises:
        MtbertError: there is no such format.
    """
    if name not in FORMATS:
        raise MtbertError(f"--to: {name!r} is unknown{nearest(name, list(FORMATS))}")
    return import_module(FORMATS[name]).write
