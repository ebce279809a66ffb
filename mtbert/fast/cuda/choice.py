"""Chooses the encoder's passes: Triton's kernels if they compile and compute correctly here, else torch's operations."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream
from mtbert.fast.cuda.merged import Merge
from mtbert.fast.cuda.passes import Passes, Ragged
from mtbert.files import atomic_write_text
from mtbert.model.bert import BertConfig, Embeddings
from mtbert.model.dropout import Dropout, Noise
from mtbert.peft import dora

SLOW = 1.0  # seconds of compiling of which the user is told
CLOSE = 0.05  # what is compared is of the order of 1, and has bf16's three digits


@cache
def passes_for(device: torch.device, hidden: int, intermediate: int, heads: int) -> type[Passes]:
    """The passes for an encoder of these widths and attention heads, in bf16.

    The first call on a machine compiles the kernels and compares their results with torch's. A file in Triton's cache
    then says that they passed. The kernels for LoRA and DoRA are tried at one shape only; others are compiled in the first
    step. If the kernels can't be used, a note says why.
    """
    if device.type != "cuda":
        return Passes
    began = time.perf_counter()
    try:
        from mtbert.fast.cuda.fused import FusedPasses

        passed = _record(device, FusedPasses.compiler, hidden, intermediate, heads)
        if passed.is_file():
            return FusedPasses
        with torch.inference_mode(False), torch.enable_grad():
            _try(FusedPasses, device, hidden, intermediate, heads)
        with suppress(OSError):  # without the file, the next process tries them again
            atomic_write_text(passed, "")
    except Exception as error:  # no Triton, no C compiler, a GPU that it does not know, ...
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        print(
            "note: Triton's kernels cannot be used, so that a step takes more launches, which is slower "
            f"({type(error).__name__}: {reason})",
            file=sys.stderr,
        )
        return Passes
    if (seconds := time.perf_counter() - began) > SLOW:
        print(f"note: compiled the GPU's kernels in {seconds:.0f} s; Triton keeps them in its cache", file=sys.stderr)
    return FusedPasses


def _record(device: torch.device, compiler: str, *widths: int) -> Path:
    """The file which says that the kernels of this code passed with this GPU, torch and Triton."""
    import triton

    code = [file.read_bytes() for file in (*sorted(Path(__file__).parent.glob("*.py")), Path(dora.__file__))]
    parts = [compiler, torch.__version__, torch.cuda.get_device_name(device), *map(str, widths)]
    key = hashlib.sha256(b"\0".join([*code, *(part.encode() for part in parts)]))
    return Path(triton.knobs.cache.dir) / f"mtbert-{key.hexdigest()[:32]}"


def _try(passes: type[Passes], device: torch.device, hidden: int, intermediate: int, heads: int) -> None:
    """Compile the kernels, and compare their results with torch's.

    Raises:
        ArithmeticError: they differ by more than rounding.
    """
    taken: list[Callable[[type[Passes], float], list[Tensor]]] = [
        lambda kind, p: _norm(kind, device, hidden, p),
        lambda kind, _: _gelu(kind, device, intermediate),
        lambda kind, p: _attention(kind, device, heads, hidden // heads, p),
        lambda kind, _: [kind.sums(_made_up(device, 3 * hidden, 1024)[0].bfloat16(), torch.float32) / 32],
        lambda kind, _: _embed(kind, device, hidden),
        lambda kind, _: sample(kind.merge, device, hidden),
    ]
    for take in taken:
        take(passes, 0.1)
        for found, expected in zip(take(passes, 0.0), take(Passes, 0.0), strict=True):
            if not torch.allclose(found.float(), expected.float(), atol=CLOSE, rtol=CLOSE):
                raise ArithmeticError("they compute something else than torch")


def _norm(passes: type[Passes], device: torch.device, width: int, p: float) -> list[Tensor]:
    x, y, bias, to_wide, to_narrow = _made_up(device, width)
    norm = nn.LayerNorm(width, device=device)
    wide, narrow = passes().residual_norm(x, y.bfloat16(), bias[0], norm, Dropout(p, Noise()))
    ((wide * to_wide).sum() + (narrow * to_narrow).sum()).backward()
    return [wide, narrow, *(one.grad for one in (x, y, bias, norm.weight, norm.bias) if one.grad is not None)]


def _gelu(passes: type[Passes], device: torch.device, width: int) -> list[Tensor]:
    y, bias, to_out, *_ = _made_up(device, width)
    out = passes().gelu(y.bfloat16(), bias[0])
    (out * to_out).sum().backward()
    return [out, *(one.grad for one in (y, bias) if one.grad is not None)]


def _attention(passes: type[Passes], device: torch.device, heads: int, width: int, p: float) -> list[Tensor]:
    """In sequences of one block and more; torch's is computed in fp32, which any device can do."""
    lengths = [7, 40]
    narrow = torch.bfloat16 if device.type == "cuda" else torch.float16  # Triton's interpreter can't multiply bf16
    draw = torch.Generator().manual_seed(0)
    qkv, grad = (torch.randn(47, n * heads * width, generator=draw).to(device, narrow) for n in (3, 1))
    qkv.requires_grad_()
    if passes is Passes:
        parts = [one.float().unflatten(1, (heads, -1)).transpose(0, 1).split(lengths, 1) for one in qkv.chunk(3, 1)]
        mixed = [F.scaled_dot_product_attention(*part) for part in zip(*parts, strict=True)]
        out = torch.cat(mixed, 1).transpose(0, 1).flatten(1).to(narrow)
    else:
        ragged = Ragged(torch.tensor([0, 7, 47], dtype=torch.int32, device=device), 40)
        out = passes().attention(qkv, ragged, heads, Dropout(p, Noise()))
    out.backward(grad)
    assert qkv.grad is not None
    return [out, qkv.grad]


def _embed(passes: type[Passes], device: torch.device, width: int) -> list[Tensor]:
    """Two sequences; the second has two segments."""
    x, _, bias, to_out, _ = _made_up(device, width)
    embeddings = Embeddings(BertConfig(vocabulary=9, positions=9, hidden=width), 0.0, Noise()).to(device)
    with torch.no_grad():
        embeddings.token.weight.copy_(x)
        embeddings.position.weight.copy_(bias)
        embeddings.segment.weight.copy_(bias[:2])
    positions = torch.tensor([0, 1, 0, 1, 2, 3, 4, 5, 6], device=device)
    ids, segments, offsets = positions + 2, (positions > 3).long(), torch.tensor([0, 2, 9], device=device)
    stream = TokenStream(ids, positions, segments, offsets, offsets[:2], 9, 7)
    out = passes().embed(embeddings, stream, Ragged.of(stream))
    (out * to_out).sum().backward()
    return [out, *(one.grad for one in embeddings.parameters() if one.grad is not None)]


def sample(merge: type[Merge], device: torch.device, width: int) -> list[Tensor]:
    """W' of two square layers with LoRA and with DoRA, and the gradients of A, B and m, all of the order of 1."""
    draw = torch.Generator().manual_seed(0)

    def made_up(*shape: int) -> Tensor:
        return torch.rand(2, *shape, generator=draw).to(device)

    found: list[Tensor] = []
    for magnitude in (False, True):
        weights, gradients = made_up(width, width), made_up(width, width) / width**0.5
        stacks = [made_up(8, width), made_up(width, 8), *([made_up(width) * width**0.5] if magnitude else [])]
        parameters = [one.requires_grad_() for stack in stacks for one in stack.unbind()]
        merged = merge.apply(weights, 1 / 8, magnitude, torch.bfloat16, [1, 1], *parameters)
        torch.autograd.backward(merged, list(gradients.bfloat16()))
        found += [*merged, *(one.grad for one in parameters if one.grad is not None)]
    return found


def _made_up(device: torch.device, width: int, rows: int = 9) -> Sequence[Tensor]:
    """Five matrices, whose gradients are wanted."""
    draw = torch.Generator().manual_seed(0)
    return [one.to(device).requires_grad_() for one in torch.randn(5, rows, width, generator=draw)]
