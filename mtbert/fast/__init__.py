"""Code that is there for speed alone (see README.md). Without this folder mtbert works, only slower."""

import torch

from mtbert.fast.cpu import build
from mtbert.fast.cpu.engine import CpuEngine
from mtbert.fast.cpu.engine import unfit as unfit_for_cpu
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.model.bert import BertEncoder, FeedForward, Layer, SelfAttention
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.pal import PalLayer
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine


def accelerate(model: MultitaskModel, compute: Compute) -> Engine | str:
    """A fast engine for the model, or one line that says why there is none; parameters and their names do not change."""
    cuda = compute.device.type == "cuda"
    if not _knows(model.encoder, (Layer,) if cuda else (Layer, PalLayer)):
        return "the fast path takes BERT's layers as they are, and the run's adapter changes them"
    if cuda and torch.version.hip:
        return "the fast path on a GPU is for CUDA, and this torch is built for ROCm"
    if cuda:
        return CudaEngine(model, compute) if compute.bf16 else "the fast path on CUDA is for bf16"
    return unfit_for_cpu(model) or CpuEngine(model, compute)


def _knows(encoder: BertEncoder, layers: tuple[type[Layer], ...]) -> bool:
    """Whether all layers are of these types, whose forward an engine replaces; of what type their linear layers are does not matter."""
    return all(
        type(layer) in layers and (type(layer.attention), type(layer.feed_forward)) == (SelfAttention, FeedForward)
        for layer in encoder.stack()
    )


def kernels() -> tuple[bool, str]:
    """Whether there are compiled kernels for the CPU, and the compiler, or else the reason."""
    reason = build.unavailable()
    return not reason, reason or build.compiler()
