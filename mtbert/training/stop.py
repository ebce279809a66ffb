"""Ctrl-C and SIGTERM while a run trains: the step in hand is finished and kept, and a second signal kills at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mtbert.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process has been asked to stop, and by which signal.

    Attributes:
        asked: the signal, or None.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._between_steps = False

    def after(self, done: int, steps: int) -> Stopped:
        """What to raise once the checkpoint of step `done` of `steps` is written."""
        assert self.asked is not None
        told = f"stopped by {self.asked.name} after step {done:,} of {steps:,}; the same command goes on from there"
        return Stopped(told, self.asked)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Inside, where no weight changes, nothing has to be finished first.

        Raises:
            Stopped: the process is asked to stop, or has been.
        """
        self._between_steps = True
        try:
            self._perhaps_raise()
            yield
        finally:
            self._between_steps = False

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Take note of the first signal; the next one ends the process, as if there were no handler."""
        for one in SIGNALS:
            if signal.getsignal(one) == self.receive:
                signal.signal(one, signal.SIG_DFL)
        self.asked = signal.Signals(number)
        self._perhaps_raise()

    def _perhaps_raise(self) -> None:
        if self.asked is not None and self._between_steps:
            raise Stopped(f"stopped by {self.asked.name}", self.asked)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM for the block; not in other threads than the main one, where Python allows no handler.

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
