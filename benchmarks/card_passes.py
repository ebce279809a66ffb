"""Training steps of batch 16 with u, v and c on one card: full fine-tuning, LoRA and DoRA, by Triton's kernels and torch's operations."""

import statistics
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.adapters import adapted
from benchmarks.card import TOKENS, UNIT, Setting, attempted, first_of, made_up, measured, peak_of, slower_by
from benchmarks.harness import Case, Target, publish
from benchmarks.work import multitask, training
from mtbert.data.arrays import Split
from mtbert.fast.cuda.engine import CudaEngine
from mtbert.fast.cuda.passes import Passes
from mtbert.model.bert import initialise

BATCH = 16
METHODS = ("full", "LoRA", "DoRA")
LISTED = 40  # kernels of a step, those that take longest


def passes(setting: Setting) -> None:
    """Measure replayed steps, and what kernels they consist of; writes gpu-passes.json."""
    data = made_up("quora", 400 if setting.tiny else 40_000)
    setting = setting._replace(steps=setting.steps * (1 if setting.tiny else 5))  # these steps are short
    # Each case is made once, since building a model takes longer than measuring it; all six take some 9 GB.
    cases: dict[str, Callable[[], Case]] = {
        f"{method}, {by}": cache(partial(_case, setting, data, method, by == "torch"))
        for by, method in product(("Triton", "torch"), METHODS)
    }
    peaks, _ = attempted(
        {method: partial(peak_of, cases[f"{method}, Triton"], setting.device) for method in METHODS}, setting
    )
    rates, about = measured("passes", cases, setting, lambda found: first_of(found, "full, Triton"))
    seen = {name: kernels(setting, cases[name]()) for name in rates if not setting.over}
    lengths = [float(np.diff(offsets).mean()) for offsets in (data.offsets1, data.offsets2) if offsets is not None]
    tokens = BATCH * (2 * sum(lengths) + 7)  # u, v and c hold each sentence twice, and 7 of [CLS] and [SEP]
    milliseconds = {name: 1000 * tokens / statistics.median(found) for name, found in rates.items()}
    full = milliseconds.get("full, Triton")
    targets = [
        *([Target("milliseconds of a step of full fine-tuning", full, 2.5, True)] if full else []),
        *slower_by("time of a DoRA step over LoRA's", rates, "DoRA, Triton", "LoRA, Triton", 1.05),
        *slower_by("time of a DoRA step over full fine-tuning's", rates, "DoRA, Triton", "full, Triton", 0.9),
    ]
    if (ours := peaks.get("DoRA")) and (theirs := peaks.get("LoRA")):
        targets.append(Target("peak memory of DoRA's steps over LoRA's", ours / theirs, 1.02, True))
    publish(
        setting.name("passes"), UNIT, rates, ours=first_of(rates, "full, Triton"), targets=targets, batch_size=BATCH,
        milliseconds_per_step=milliseconds, peak_bytes_of_steps=peaks, kernels=seen, **about,
    )  # fmt: skip


def _case(setting: Setting, data: Split, method: str, plain: bool) -> Case:
    torch.manual_seed(0)
    with setting.device:
        model = multitask(setting.config, ["u", "v", "c"], 0.1, lambda encoder: encoder.apply(initialise))
    if method != "full":
        model = adapted(model, method.lower())
    chosen = (lambda *_: Passes) if plain else CudaEngine.passes_for
    with patch.object(CudaEngine, "passes_for", staticmethod(chosen)):
        return training(model, data, TOKENS, setting.graphs, BATCH, setting.steps)


def kernels(setting: Setting, case: Case) -> dict[str, Any] | None:
    """The number of kernels in a step, and the longest ones: how many there are, and their microseconds."""
    if setting.device.type != "cuda":
        return None
    case()  # records most graphs if the case has not run before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        case()
    found = [event for event in profiled.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    found.sort(key=lambda event: -event.self_device_time_total)
    return {
        "per_step": sum(event.count for event in found) / setting.steps,
        "longest": {
            event.key[:200]: [event.count / setting.steps, event.self_device_time_total / setting.steps]
            for event in found[:LISTED]
        },
    }
