"""What the stages share: where things lie, and how a stage starts and fails."""

import ctypes
import inspect
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError, out_of_memory

RAW, PREPARED, MODELS, RESULTS = Path("data/raw"), Path("data/prepared"), Path("models"), Path("results")
METRICS, REPORTS = Path("metrics"), Path("reports")
PRETRAINED, CONVERTED = MODELS / "pretrained", MODELS / "converted"


def inside(folder: str, key: str) -> Path:
    """The folder that a setting names, if it and all links in it lie in the project.

    Raises:
        MtbertError: it leads out of the project.
    """
    root, path = Path.cwd().resolve(), Path(folder)
    if root not in path.resolve().parents:
        raise MtbertError(f"params.yaml: {key}: {folder} leads out of {root}, or is all of it; name a folder inside")
    confine(path)
    return path


def confine(*paths: Path) -> None:
    """Let a stage read and write only in the project: these files or folders, and all links in them, must lie there.

    Raises:
        MtbertError: names the first that leads out, and where to.
    """
    root = Path.cwd().resolve()
    waiting, seen = list(paths), set()
    while waiting:
        path = waiting.pop()
        try:
            target = path.resolve()
        except RuntimeError:
            raise MtbertError(f"{path}: a link that leads to itself; remove it") from None
        if root not in target.parents:
            raise MtbertError(
                f"{path}: a link leads out of the project, to {target}; put there what it leads to "
                "(if DVC made it: `dvc config cache.type copy`, then `dvc checkout --relink`)"
            )
        if target.is_dir() and target not in seen:
            seen.add(target)
            with suppress(FileNotFoundError):  # another run's temporary folder, gone by now
                waiting.extend(path.iterdir())


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
