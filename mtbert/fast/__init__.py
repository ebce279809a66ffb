"""Code that is there for speed alone (see README.md). Without this folder mtbert works, only slower."""

import torch

from mtbert.fast.cpu import build
from mtbert.fast.cpu.engine import CpuEngine
from mtbert.fast.cpu.engine import unfit as unfit_for_cpu
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.model.bert import BertEncoder, FeedForward, Layer, SelfAttention
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine


def accelerate(model: MultitaskModel, compute: Compute) -> Engine | str:
    """A fast engine for the model, or one line that says why there is none; parameters and their names do not change."""
    if not _is_plain(model.encoder):
        return "the fast path takes BERT's layers as they are, and the run's adapter changes them"
    if compute.device.type == "cuda" and torch.version.hip:
        return "the fast path on a GPU is for CUDA, and this torch is built for ROCm"
    if compute.device.type == "cuda":
        return CudaEngine(model, compute) if compute.bf16 else "the fast path on CUDA is for bf16"
    return unfit_for_cpu(model) or CpuEngine(model, compute)


def _is_plain(encoder: BertEncoder) -> bool:
    """Whether all layers are BERT's own, whose forward the engines replace; of what type their linear layers are does not matter."""
    return all(
        (type(layer), type(layer.attention), type(layer.feed_forward)) == (Layer, SelfAttention, FeedForward)
        for layer in encoder.stack()
    )


def kernels() -> tuple[bool, str]:
    """Whether there are compiled kernels for the CPU, and the compiler, or else the reason."""
    reason = build.unavailable()
    return not reason, reason or build.compiler()
