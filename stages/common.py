"""What the stages share: where things lie, and how a stage starts and fails."""

import ctypes
import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError, out_of_memory

RAW, PREPARED, MODELS, RESULTS = Path("data/raw"), Path("data/prepared"), Path("models"), Path("results")
PRETRAINED, CONVERTED = MODELS / "pretrained", MODELS / "converted"


def inside(folder: str, key: str) -> Path:
    """The folder that a setting names, if it lies in the project, links followed.

    Raises:
        MtbertError: it leads out of the project.
    """
    root, path = Path.cwd().resolve(), Path(folder)
    if root not in path.resolve().parents:
        raise MtbertError(f"params.yaml: {key}: {folder} leads out of {root}, or is all of it; name a folder inside")
    return path


def start(main: Callable[..., None]) -> None:
    """Run a stage as `python -m stages.NAME [ARG]`, as dvc.yaml does: it dies with its parent, so no orphan keeps writing.

    Exit status as `guarded`, or 2 where arguments are missing or too many.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    arguments, wanted = sys.argv[1:], [name.upper() for name in inspect.signature(main).parameters]
    if len(arguments) != len(wanted):
        usage = " ".join([f"python -m stages.{Path(sys.argv[0]).stem}", *wanted])
        print(f"error: arguments needed: {len(wanted)}, given: {len(arguments)}; usage: {usage}", file=sys.stderr)
        sys.exit(2)
    sys.exit(guarded(main, *arguments))


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
    except (RuntimeError, MemoryError) as error:  # training names the run's batch_size itself; this is about all else
        if not out_of_memory(error):
            raise
        print(
            f"error: out of memory; lower prepare.max_tokens, or free memory, and run again ({error})", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    return 0
