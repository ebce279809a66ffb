"""What a check of `mtbert doctor` finds, and what checks share."""

import importlib
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Literal, NamedTuple, ParamSpec

P = ParamSpec("P")


class Check(NamedTuple):
    """One line. A `problem` stops the pipeline, a `note` does not; `remedy` says what to do, and is empty if all is well."""

    level: Literal["ok", "note", "problem"]
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:8}{self.what}{'; ' if self.remedy else ''}{self.remedy}"


def failed(error: str) -> Check:
    """The message of an `MtbertError`, in one line, as a problem."""
    what, _, remedy = error.partition("; ")
    return Check("problem", what, remedy)


def needs_torch(what: str) -> Callable[[Callable[P, Check]], Callable[P, Check]]:
    """Decorate a check that uses torch: where torch cannot be imported, it notes that `what` was not examined."""

    def decorate(check: Callable[P, Check]) -> Callable[P, Check]:
        @wraps(check)
        def found(*args: P.args, **kwargs: P.kwargs) -> Check:
            try:
                importlib.import_module("torch")
            except (ImportError, OSError):
                return Check("note", f"{what} not examined", "see torch above")
            return check(*args, **kwargs)

        return found

    return decorate


def output(root: Path, *command: str) -> str | None:
    """What a command prints; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()
