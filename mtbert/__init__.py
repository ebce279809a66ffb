"""Multitask minBERT with parameter-efficient fine-tuning.

`load` returns a trained model that predicts and encodes text; the other names are its types.
"""

from importlib import import_module
from typing import Any

__all__ = ["Label", "LongInputWarning", "MtbertError", "Score", "TaskInfo", "TrainedModel", "load"]
_HOMES = {"load": "inference.load", "MtbertError": "errors"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: `import mtbert` stays cheap, and no stage's code includes inference."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'inference.model')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
