"""The exception for errors that a user can fix: what is wrong, where, and what to do about it."""

import difflib
from collections.abc import Sequence


class MtbertError(Exception):
    """A bad input, setting or state. The message names the place (file:line:column or params key) and the remedy.

    Stages and the command line print it without a traceback and exit with status 1.
    """


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by a signal and has saved its work; the message is one line for the user.

    Args:
        number: the signal.

    Attributes:
        status: the exit status that shells report for that signal, 128 + `number`: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch raises OutOfMemoryError on a GPU and RuntimeError on a CPU, numpy raises MemoryError."""
    return (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
    )


def nearest(word: str, valid: Sequence[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'x'?`, or the valid names if none is similar."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(valid)}"


def short(value: object) -> str:
    """The value's repr, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
