"""Start a stage: end it when DVC or Snakemake ends, and turn exceptions into messages and exit statuses."""

import ctypes
import errno
import inspect
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from mtbert.errors import MtbertError, Stopped, out_of_memory
from mtbert.pipeline.plans import check_unchanged

REMEDIES = {
    errno.ENOSPC: "free space on that disk, then run the same command again",
    errno.EDQUOT: "free some of your quota on that disk, then run the same command again",
    errno.EACCES: "give yourself read and write permission (`ls -ld` shows owner and permissions), then run the same command again",
    errno.EPERM: "give yourself permission to change it (`ls -ld` shows owner and permissions), then run the same command again",
    errno.EROFS: "the disk is mounted read-only; copy the project to another disk and work there",
    errno.ENOENT: "run `dvc repro`, which writes the inputs of every stage",
    errno.ENOTDIR: "there is a file where a folder must be: move it away, then run the same command again",
    errno.EISDIR: "there is a folder where a file must be: move it away, then run the same command again",
    errno.EEXIST: "the name is taken: move that file or folder away, then run the same command again",
    errno.EMFILE: "allow more open files (`ulimit -n 4096`), then run the same command again",
}
STARTED_BY = "MTBERT_STARTED_BY"  # an environment variable: the process id of the Snakemake that starts the stage


def share_cores() -> None:
    """Let torch's threads sleep while they wait for one another, so that other processes get the cores.

    By default they spin, and two trainings at once are then slower than one after the other (docs/performance.md). OpenMP reads this when
    torch is imported. A user's own setting is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def end_with_starter() -> None:
    """Make a stage receive SIGTERM when the DVC or Snakemake that started it ends, even by SIGKILL, or now if it has already ended.

    A stage that a user started is unaffected, so it may outlive its shell.
    """
    by_dvc = "DVC_STAGE" in os.environ
    if by_dvc:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: the kernel sends it when the parent ends
        running = _running_dvc()
    else:
        running = {int(os.environ[STARTED_BY])} if STARTED_BY in os.environ else None
    if running is None:
        return
    starter = next((pid for pid in _ancestors() if pid in running), None)
    if starter is None:
        os.kill(os.getpid(), signal.SIGTERM)
    # Dash and fish stay between DVC and the stage; bash does not. Snakemake starts stages from threads, and the kernel would send the
    # signal when the thread ends.
    elif not by_dvc or starter != os.getppid():
        Thread(target=_end_after, args=(starter,), daemon=True).start()


def _running_dvc() -> set[int] | None:
    """Ids of the processes that run stages of this project, from DVC's lock file; None if it is missing or unreadable."""
    try:
        folders = [Path.cwd(), *Path.cwd().parents]  # a study's stage runs in a subfolder of the project
        path = next(folder for folder in folders if (folder / ".dvc").is_dir()) / ".dvc/tmp/rwlock"
        lock = json.loads(path.read_text(encoding="utf-8"))
        readers = [reader for those in lock.get("read", {}).values() for reader in those]
        return {holder["pid"] for holder in [*readers, *lock.get("write", {}).values()]} or None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, StopIteration):
        return None


def _ancestors() -> list[int]:
    """Ids of the parent, its parent and so on. If a parent has ended, init has taken its place."""
    found, pid = [], os.getppid()
    with suppress(OSError):  # it has just ended
        while pid:
            found.append(pid)
            status = Path(f"/proc/{pid}/stat").read_bytes()
            pid = int(status.rpartition(b")")[2].split()[1])
    return found


def _end_after(pid: int) -> None:
    """Wait for a process to end, then end this one."""
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


def start(main: Callable[..., None], several: bool = False) -> None:
    """Run a stage as `python -m stages.NAME [ARG]`, as dvc.yaml does.

    Exit status as `guarded`, or 2 for a wrong number of arguments.

    Args:
        several: torchrun may start several processes of it.
    """
    arguments, wanted = sys.argv[1:], [name.upper() for name in inspect.signature(main).parameters]
    if len(arguments) != len(wanted):
        usage = " ".join([f"python -m stages.{Path(sys.argv[0]).stem}", *wanted])
        print(f"error: arguments needed: {len(wanted)}, given: {len(arguments)}; usage: {usage}", file=sys.stderr)
        sys.exit(2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `stages` left it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stage(*given: str) -> None:
        main(*given)
        check_unchanged()

    with quiet_pipe():
        sys.exit(guarded(stage, *arguments, several=several))


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End a process without a message if the reader of its output has ended, as `head` does: status 141, as after SIGPIPE.

    If the output cannot be written for another reason, print it: status 1.
    """
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # what is left in the buffer; Python would report a failure when it exits
    except (BrokenPipeError, SystemExit) as error:
        # Rich and Typer replace a BrokenPipeError by SystemExit(1).
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # Python writes to both when it exits
            os.dup2(null, stream)
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:  # a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: standard output: {error.strerror or error}; {_remedy(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _remedy(error: OSError) -> str:
    return REMEDIES.get(error.errno or 0, "remove the cause, then run the same command again")


def _where() -> str:
    """The study's folder, where the stage of a study runs: DVC does not name it, and paths and remedies are relative to it."""
    return f"in {Path.cwd().parent.name}/{Path.cwd().name}: " if Path("../study.yaml").exists() else ""


def guarded(main: Callable[..., None], *arguments: Any, several: bool = False) -> int:
    """Call a stage. Exit status 0, 1 after an error, which is printed, or 128 plus the signal after an interrupt.

    Args:
        several: as for `start`.

    Raises:
        BrokenPipeError: the reader of the output has ended; `quiet_pipe` handles it.
    """
    try:
        if not several and (os.environ.get("WORLD_SIZE") or "1") != "1":
            raise MtbertError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this command is for one process; start it without "
                "torchrun, or unset WORLD_SIZE (only `torchrun -m stages.train RUN` takes several)"
            )
        main(*arguments)
    except MtbertError as error:
        print(f"error: {_where()}{error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a missing permission, a file where a folder should be
        if not error.filename:
            print(end="", flush=True)  # fails again if it was standard output, for `quiet_pipe` to name it
        what = f"{error.filename or 'input/output'}: {error.strerror or error}"
        print(f"error: {_where()}{what}; {_remedy(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        # Running out of memory in training is an MtbertError, which names batch_size.
        if not out_of_memory(error):
            raise
        print(
            f"error: {_where()}out of memory ({error}); free memory, or lower prepare.max_tokens in params.yaml, then run again",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        remedy = "the same command resumes training from its last checkpoint and restarts any other stage"
        print(f"interrupted; {remedy}", file=sys.stderr)
        return 130
    return 0
