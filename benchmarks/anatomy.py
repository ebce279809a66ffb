"""Where a training step's time goes: matrix products, attention, elementwise operations, casts and copies, optimizer, the rest.

On a CPU these are shares of the time in torch's operations. On a GPU they are shares of the time in its kernels, and the rest is the time
in which it had none to run; `--base` measures BERT-base with random weights and data there, which needs no prepared data.
"""

import re
import time
from collections import defaultdict
from typing import Annotated

import torch
import typer
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import ceiling
from benchmarks.adapters import adapted
from benchmarks.card import TOKENS, launches, made_up
from benchmarks.card import model as random_model
from benchmarks.harness import write
from benchmarks.work import minilm, split, training, wrapper
from mtbert.model.bert import BertConfig
from mtbert.training.compute import resolve

# Prefixes of the names of torch's operations; the first match counts.
KINDS = {
    "products of the linear layers": ("aten::mm", "aten::addmm"),
    "attention": ("PackedAttention", "aten::bmm", "aten::baddbmm", "aten::_softmax"),
    "optimizer": ("aten::_fused_adamw", "aten::_foreach", "Optimizer.step"),
    "casts and copies": ("aten::copy_", "aten::cat", "aten::_to_copy"),
    "element by element": (
        *("aten::gelu", "aten::native_layer_norm", "aten::add", "aten::mul", "aten::sum", "aten::ge"),
        *("Gelu", "ResidualNorm", "AdapterProduct"),
    ),
}
# Patterns in the names of CUDA's kernels; the first match counts, since attention's kernels name the library of the products.
KERNELS = {
    "attention": r"flash|fmha|^attention",
    "weights of adapters": r"^merge",
    "optimizer": r"multi_tensor_apply(?!.*Copy)|adam",
    "products of the linear layers": r"gemm|cutlass|nvjet|xmma|splitK",
    "casts and copies": r"Mem(cpy|set)|[Cc]opy|Cat|fill",
    "element by element": r"elementwise|layer_norm|LayerNorm|residual_norm|gelu|column_sums|places|reduce|dropout|index|embedding|softmax|gather|scatter",
}
REST = "Python, masks, the batch, all else"


def main(
    task: str = "sst",
    batch_size: int = 32,
    dora: Annotated[bool, typer.Option(help="adapters of rank 16 instead of all weights")] = False,
    steps: int = 20,
    device: str = "auto",
    graphs: Annotated[bool, typer.Option(help="replay steps from CUDA graphs on a GPU")] = True,
    base: Annotated[bool, typer.Option(help="BERT-base with random weights and data")] = False,
) -> None:
    """Shares of a step from torch's profiler, including the profiler's own cost; the step's time is measured without it."""
    compute = resolve(device, "auto", "auto", "auto" if graphs else False)
    plain = random_model(BertConfig()) if base else minilm(["c"])
    model = adapted(plain, "dora") if dora else plain
    data, tokens = (made_up(task, 20_000), TOKENS) if base else (split(task), wrapper())
    case = training(model, data, tokens, compute, batch_size, steps)
    for _ in range(5):
        case()
    began = time.perf_counter()
    done = case()
    seconds = time.perf_counter() - began
    on_gpu = compute.device.type == "cuda"
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as profiled:
        case()
        whole = time.perf_counter() - began  # without the time that the profiler takes to finish
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        if not on_gpu:
            spent[kind(event.key)] += event.self_cpu_time_total / 1e6
        elif event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            spent[kind_of_kernel(event.key)] += event.self_device_time_total / 1e6
    spent[REST] += whole - sum(spent.values())
    shares = {name: spent[name] / whole for name in [*(KERNELS if on_gpu else KINDS), REST]}
    for name, share in shares.items():
        print(f"{share:6.1%}  {name}")
    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    name = (
        f"{task}-{batch_size}{'-dora' * dora}{'-base' * base}{'-cuda' * on_gpu}{'-launched' * (on_gpu and not graphs)}"
    )
    result = {
        "precision": compute.describe()["precision"],
        "milliseconds_per_step": 1000 * seconds / steps,
        "tokens_per_step": done / steps,
        "shares": shares,
        **({"launches_per_step": launches(profiled) / steps} if on_gpu else {}),
        "matrix_flops": ceiling.rate(model.encoder.config, round(done / steps), dtype, compute.device.type),
    }
    write(f"anatomy-{name}", result)


def kind(name: str) -> str:
    """Which of KINDS an operation belongs to."""
    return next((group for group, starts in KINDS.items() if name.startswith(starts)), REST)


def kind_of_kernel(name: str) -> str:
    """Which of KERNELS a kernel, copy or fill of CUDA belongs to."""
    return next((group for group, pattern in KERNELS.items() if re.search(pattern, name)), REST)


if __name__ == "__main__":
    typer.run(main)
