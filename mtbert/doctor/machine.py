"""The machine: Python, torch, processor, GPU, compiler and disk."""

import importlib
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from mtbert.doctor.check import Check, needs_torch
from mtbert.housekeeping import human

LITTLE, TOO_LITTLE = 5e9, 1e9  # bytes of free disk
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def python(_root: Path) -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 13):
        return Check("ok", f"mtbert {version('mtbert')} on Python {found}")
    return Check("problem", f"Python {found}", "use 3.11 or 3.12: `rm -r .venv && make install PYTHON=python3.12`")


def torch(_root: Path) -> Check:
    try:
        found = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return Check("problem", f"torch cannot be imported ({str(error).splitlines()[0]})", "run `make install`")
    gpus = (("CUDA", found.version.cuda), ("ROCm", getattr(found.version, "hip", None)))
    build = next((f"for {name} {release}" for name, release in gpus if release), "for CPUs only")
    if not found.version.cuda and Path("/proc/driver/nvidia/version").exists():
        remedy = "remove .venv, then run `make install`, which installs the GPU build on a machine with a GPU"
        return Check("note", f"torch {found.__version__}, built {build}, but this machine has an NVIDIA GPU", remedy)
    return Check("ok", f"torch {found.__version__}, built {build}")


@needs_torch("processor")
def processor(_root: Path) -> Check:
    from mtbert.training import compute

    what = f"{compute.machine()}, {_precision('cpu')}"
    if (quota := _quota()) and quota < len(os.sched_getaffinity(0)):
        return Check(
            "note",
            f"{what}, of which this container may use {quota}",
            f"set compute.threads: {quota} in params.yaml, since more threads than that wait for one another",
        )
    return Check("ok", what)


def _quota() -> int | None:
    """The whole processors, at least one, that a container's limit allows; None without a limit."""
    try:
        share, period = QUOTA.read_text(encoding="utf-8").split()
        return max(1, int(share) // int(period))
    except (OSError, ValueError):  # `max` is no limit
        return None


def _precision(device: str) -> str:
    from mtbert.training.compute import resolve

    return "in bf16" if resolve(device, "auto", "auto").bf16 else "in fp32: it has no bf16 instructions"


@needs_torch("GPU")
def gpu(_root: Path) -> Check:
    from torch import cuda

    if not cuda.is_available():
        return Check("ok", "no GPU that torch can use; training runs on the CPU")
    free, total = cuda.mem_get_info()
    return Check("ok", f"GPU {cuda.get_device_name()}, {human(free)} of {human(total)} free, {_precision('cuda')}")


@needs_torch("kernels")
def kernels(_root: Path) -> Check:
    from mtbert import engines

    found, which = engines.kernels()
    if found:
        return Check("ok", f"CPU kernels compiled by {which}")
    if not engines.installed():
        return Check("ok", f"{which}; training runs by plain torch, which is slower")
    missing = shutil.which("g++") is None
    remedy = "install g++ (Debian: `apt install g++`)" if missing else "correct that, or install another g++"
    return Check("note", which, f"{remedy}; without the kernels training is slower")


def disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    what = f"{human(free)} of disk free"
    if free < LITTLE:
        remedy = (
            "free some: `mtbert clean` removes leftovers, `dvc gc --workspace` removes cached results of other settings"
        )
        return Check("problem" if free < TOO_LITTLE else "note", what, remedy)
    return Check("ok", what)
