"""Run a command on GPUs of its own: Snakemake counts the GPUs of a machine, but gives none to a job.

`python -m mtbert.workflow.gpu COUNT COMMAND [ARGUMENT]...` waits until so many are free, hides the others, and becomes the command.
A GPU is held by a lock on a file, which the kernel releases when the command ends, however it ends.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.pipeline.start import end_with_starter, guarded

SECONDS = 0.5  # between two looks for a free GPU


def main() -> None:
    """Hold the GPUs, then replace this process by the command.

    Raises:
        MtbertError: the machine has fewer GPUs, or no working nvidia-smi.
    """
    end_with_starter()
    count, command = int(sys.argv[1]), sys.argv[2:]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(hold(visible(), count))
    os.execvp(command[0], command)


def visible() -> list[str]:
    """Unique ids of the GPUs that this process may use; Slurm, containers and users limit them by CUDA_VISIBLE_DEVICES."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise MtbertError(
            f"nvidia-smi fails ({error}); repair the NVIDIA driver, or set compute.device: cpu in params.yaml and "
            "run `mtbert workflow snakemake` again"
        ) from None
    found = dict(line.split(", ") for line in lines)
    limited = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(found.values()) if limited is None else [found.get(name, name) for name in limited.split(",") if name]


def hold(gpus: list[str], count: int) -> list[str]:
    """Wait until `count` of these GPUs are free, and hold them until this process, and the command that it becomes, have ended.

    Raises:
        MtbertError: there are fewer.
    """
    if count > len(gpus):
        raise MtbertError(
            f"params.yaml: workflow: a stage wants {count} GPUs, but only {len(gpus)} can be used here; lower its `gpus`, "
            "then run `mtbert workflow snakemake` again"
        )
    while True:
        held: dict[str, int] = {}
        for gpu in gpus:
            lock = Path(tempfile.gettempdir()) / f"mtbert-{os.getuid()}-{gpu.replace('/', '-')}.lock"
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            held[gpu] = file
            if len(held) == count:
                for one in held.values():
                    os.set_inheritable(one, True)
                return list(held)
        for one in held.values():  # keep none while waiting, so that two jobs never wait for each other
            os.close(one)
        time.sleep(SECONDS)


if __name__ == "__main__":
    sys.exit(guarded(main))
