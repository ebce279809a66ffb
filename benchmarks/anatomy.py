"""Where a training step's time goes: matrix products, attention, elementwise operations, casts and copies, optimizer, the rest."""

import time
from collections import defaultdict
from typing import Annotated

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from benchmarks import ceiling
from benchmarks.adapters import adapted
from benchmarks.harness import RESULTS, where
from benchmarks.work import minilm, split, training, wrapper
from mtbert.files import atomic_json
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
REST = "Python, masks, the batch, all else"


def main(
    task: str = "sst",
    batch_size: int = 32,
    dora: Annotated[bool, typer.Option(help="adapters of rank 16 instead of all weights")] = False,
    steps: int = 20,
) -> None:
    """Shares of a step from torch's profiler, including the profiler's own cost; the step's time is measured without it."""
    compute = resolve("auto", "auto", "auto")
    model = adapted(minilm(["c"]), "dora") if dora else minilm(["c"])
    data = split(task)
    case = training(model, data, wrapper(), compute, batch_size, steps)
    for _ in range(5):
        case()
    began = time.perf_counter()
    tokens = case()
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        case()
    whole = time.perf_counter() - began
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        spent[kind(event.key)] += event.self_cpu_time_total / 1e6
    spent[REST] += whole - sum(spent.values())
    shares = {name: spent[name] / whole for name in [*KINDS, REST]}
    for name, share in shares.items():
        print(f"{share:6.1%}  {name}")
    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    result = {
        "milliseconds_per_step": 1000 * seconds / steps,
        "tokens_per_step": tokens / steps,
        "shares": shares,
        "matrix_flops": ceiling.rate(model.encoder.config, round(tokens / steps), dtype),
        "targets": [],
        "command": f"python -m benchmarks.anatomy --task {task} --batch-size {batch_size}{' --dora' * dora}",
        "where": where(),
    }
    atomic_json(RESULTS / f"anatomy-{task}-{batch_size}{'-dora' * dora}.json", result)


def kind(name: str) -> str:
    """Which of KINDS an operation belongs to."""
    return next((group for group, starts in KINDS.items() if name.startswith(starts)), REST)


if __name__ == "__main__":
    typer.run(main)
