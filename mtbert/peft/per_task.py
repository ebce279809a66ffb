"""Modules of which an encoder has one for each task."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mtbert.errors import MtbertError
from mtbert.model.active import active_task


class PerTask(nn.ModuleDict):
    """A module for each task."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._modules.update(parts)  # add_module rejects tasks named like a method, such as `type`

    def of_batch(self) -> Any:
        """The module of the task of the batch that is being computed.

        Raises:
            MtbertError: sentences of no task are being encoded, or of one that the model lacks.
        """
        task = active_task()
        if task not in self._modules:
            raise MtbertError(
                "this model's encoder has parts for each task, so a sentence's vector depends on the task; "
                f"name one of {', '.join(self)}"
            )
        return self[task]
