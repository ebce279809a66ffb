"""Chooses a model's engine: one from mtbert/fast if possible, else `Plain`. No other file imports mtbert/fast."""

import sys
from types import ModuleType

from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain


def engine_for(model: MultitaskModel, compute: Compute, quiet: bool = False) -> Engine:
    """The fastest engine for a model on `compute.device`. If that is `Plain`, prints a note that says why, unless `quiet`."""
    model.release()
    found = "mtbert/fast is not installed" if (fast := _fast()) is None else fast.accelerate(model, compute)
    if not isinstance(found, str):
        model.engine = found
        return found
    if not quiet:
        print(f"note: using plain torch, which is slower: {found}", file=sys.stderr)
    return Plain(model, compute)


def installed() -> bool:
    """Whether mtbert/fast is there."""
    return _fast() is not None


def kernels() -> tuple[bool, str]:
    """Whether the CPU kernels are available, and the compiler or the reason why not."""
    fast = _fast()
    return (False, "mtbert/fast is not installed") if fast is None else fast.kernels()


def _fast() -> ModuleType | None:
    try:
        from mtbert import fast
    except ImportError as error:
        if error.name not in ("mtbert.fast", "mtbert"):
            raise
        return None
    return fast if getattr(fast, "__file__", None) else None  # __pycache__ may outlive the deleted folder
