"""What the stages share: where things lie, and how a stage starts and fails."""

import ctypes
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError

RAW, PREPARED, MODELS, RESULTS = Path("data/raw"), Path("data/prepared"), Path("models"), Path("results")
PRETRAINED, CONVERTED = MODELS / "pretrained", MODELS / "converted"


def start(main: Callable[..., None]) -> None:
    """Run a stage as `python -m stages.NAME [ARG]`, as dvc.yaml does: it dies with its parent, so no orphan keeps writing."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    sys.exit(guarded(main, *sys.argv[1:]))


def guarded(main: Callable[..., None], *arguments: Any) -> int:
    """Call a stage; exit status 0, or 1 after one clear error, or 130 after an interrupt."""
    try:
        main(*arguments)
    except MtbertError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a missing permission, a file where a folder should be
        print(
            f"error: {error.filename or 'input/output'}: {error.strerror or error}; mend that and run again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    return 0
