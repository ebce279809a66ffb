"""The engine for a model: a fast one from mtbert/fast where there is one, else the plain one. Nothing else imports mtbert/fast."""

import sys
from types import ModuleType

from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain


def engine_for(model: MultitaskModel, compute: Compute, quiet: bool = False) -> Engine:
    """The fastest engine that can take this model, which lies on `compute.device`; where that is `Plain`, a note says why.

    Args:
        quiet: leave the note out.
    """
    model.release()
    found = "mtbert/fast is not installed" if (fast := _fast()) is None else fast.accelerate(model, compute)
    if not isinstance(found, str):
        model.engine = found
        return found
    if not quiet:
        print(f"note: plain torch does all the work, more slowly: {found}", file=sys.stderr)
    return Plain(model, compute)


def kernels() -> tuple[bool, str]:
    """Whether there are compiled kernels for the CPU, and what compiled them or why there are none."""
    fast = _fast()
    return (False, "mtbert/fast is not installed") if fast is None else fast.kernels()


def _fast() -> ModuleType | None:
    try:
        from mtbert import fast
    except ImportError as error:
        if error.name not in ("mtbert.fast", "mtbert"):
            raise
        return None
    return fast if getattr(fast, "__file__", None) else None  # a deleted folder may have left its __pycache__
