"""Ctrl-C and SIGTERM during training: the current step is finished and saved; a second signal kills at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mtbert.errors import Stopped
from mtbert.training.distributed import Group

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A request to stop, by SIGINT or SIGTERM.

    Attributes:
        asked: the signal received, or None.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._between_steps = False

    def agreed(self, group: Group) -> bool:
        """Whether any of the processes was asked to stop; all call it between the same steps."""
        if number := group.largest(self.asked or 0):
            self.asked = signal.Signals(number)
        return bool(number)

    def after(self, done: int, steps: int) -> Stopped:
        """The exception to raise once the checkpoint of step `done` of `steps` is written."""
        assert self.asked is not None
        message = f"stopped by {self.asked.name} after step {done:,} of {steps:,}; the same command resumes from there"
        return Stopped(message, self.asked)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """A block in which no weight changes, so a signal stops the process at once.

        Raises:
            Stopped: a signal arrives, or has arrived before.
        """
        self._between_steps = True
        try:
            self._raise_between_steps()
            yield
        finally:
            self._between_steps = False

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Handle the first signal: remember it, and restore the default handlers for the next one."""
        for one in SIGNALS:
            if signal.getsignal(one) == self.receive:
                signal.signal(one, signal.SIG_DFL)
        self.asked = signal.Signals(number)
        self._raise_between_steps()

    def _raise_between_steps(self) -> None:
        if self.asked is not None and self._between_steps:
            raise Stopped(f"stopped by {self.asked.name}", self.asked)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM for the block. Outside the main thread, where Python allows no handlers, do nothing.

    A signal that the process ignores, as SIGINT under nohup, stays ignored.
    """
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, request.receive)
    try:
        yield request
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
