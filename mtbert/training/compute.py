"""Choose device, precision and threads; `auto` is resolved to the best that this machine has."""

import ctypes
import os
import platform
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mtbert.errors import MtbertError

# Of what `Compute.describe` names, this may differ between two attempts at a run.
MAY_DIFFER = ("threads", "cuda_graphs")


class Compute(NamedTuple):
    """A device and the precision of its matrix products; weights and optimizer state are fp32 in any case.

    Attributes:
        device: of model and batches.
        bf16: matrix products are in bf16, else in fp32.
        graphs: training steps are replayed from CUDA graphs.
    """

    device: torch.device
    bf16: bool
    graphs: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which matrix products are in bf16, if `bf16` is set."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def describe(self) -> dict[str, Any]:
        """Whatever may change the last bits of results, for the provenance record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": name,
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **({"cuda_graphs": True} if self.graphs else {}),
        }


def resolve(device: str, precision: str, threads: str | int, cuda_graphs: str | bool = False) -> Compute:
    """Resolve `auto`, set the number of threads, and let the process keep the memory that it frees.

    Args:
        cuda_graphs: replay training steps from CUDA graphs; `auto` does so wherever it works: on CUDA in bf16.

    An AMD GPU is torch's `cuda` too, in its build for ROCm. Apple's GPUs are not used.

    Raises:
        MtbertError: `device` is cuda without a CUDA device, `precision` is bf16 on a GPU without it, or `cuda_graphs` is true in fp32
            or on ROCm.
    """
    _keep_freed_memory()
    if threads != "auto":
        torch.set_num_threads(int(threads))
    if device == "cuda" and not torch.cuda.is_available():
        raise MtbertError("params.yaml: compute.device is cuda, but torch sees no CUDA device; set it to auto or cpu")
    chosen = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    if device == "auto" and chosen.type == "cpu" and torch.backends.mps.is_available():
        _note("compute.device: auto is the CPU here, since mtbert has no path for Apple's GPU")
    bf16 = precision == "bf16" or (precision == "auto" and _native_bf16(chosen))
    if bf16 and not _native_bf16(chosen):
        if chosen.type == "cuda":
            raise MtbertError(
                "params.yaml: compute.precision is bf16, but this GPU does not multiply it; set it to auto or fp32"
            )
        _note("compute.precision: bf16 is several times as slow as fp32 here, as this processor does not multiply bf16")
    rocm = torch.version.hip is not None
    graphs = chosen.type == "cuda" and (bf16 and not rocm if cuda_graphs == "auto" else bool(cuda_graphs))
    if graphs and rocm:
        raise MtbertError(
            "params.yaml: compute.cuda_graphs is true, but this torch is built for ROCm; set it to auto or false"
        )
    if graphs and not bf16:
        raise MtbertError(
            "params.yaml: compute.cuda_graphs needs bf16; set compute.precision: bf16, or cuda_graphs: auto"
        )
    return Compute(chosen, bf16, graphs)


def peak_memory(device: torch.device) -> tuple[int, int]:
    """Peak bytes of this process so far: of main memory, and of the GPU (0 without one)."""
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, gpu


@cache
def _note(text: str) -> None:
    """Print a note, once in a process."""
    print(f"note: {text}", file=sys.stderr)


def machine() -> str:
    """The processor and the number of its cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def _keep_freed_memory() -> None:
    """Stop glibc from returning freed memory to the kernel, which clears it again: up to a tenth of a step's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, the largest value allowed
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
