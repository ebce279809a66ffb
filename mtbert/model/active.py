"""The task of the batch that a model is computing, for layers that have parts for each task.

It is a context variable: threads that predict at the same time do not see each other's task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ACTIVE: ContextVar[str | None] = ContextVar("active task", default=None)


def active_task() -> str | None:
    """The task's name; None outside of a model's forward, and for sentences of no task."""
    return _ACTIVE.get()


@contextmanager
def computing(task: str | None) -> Iterator[None]:
    """A context in which `active_task` is `task`."""
    token = _ACTIVE.set(task)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
