"""All that is there for speed alone, behind one door: see README.md. Deleting this folder leaves a slower mtbert that works."""

from mtbert.fast.cpu import build
from mtbert.fast.cpu.engine import CpuEngine
from mtbert.fast.cpu.engine import unfit as unfit_for_cpu
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine


def accelerate(model: MultitaskModel, compute: Compute) -> Engine | str:
    """A fast engine for the model, or one line that says why there is none; parameters and their names stay as they are."""
    if compute.device.type == "cuda":
        return CudaEngine(model, compute) if compute.bf16 else "the fast path on CUDA is for bf16"
    return unfit_for_cpu(model) or CpuEngine(model, compute)


def kernels() -> tuple[bool, str]:
    """Whether there are compiled kernels for the CPU, and what compiled them or why there are none."""
    reason = build.unavailable()
    return not reason, reason or build.compiler()
