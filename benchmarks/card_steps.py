"""Training steps on one card, against transformers, its Trainer and peft: about 16,000 tokens a step, and batch 16."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import ceiling, peers
from benchmarks.adapters import RANK, adapted, merged_forward
from benchmarks.card import (
    TOKENS,
    UNIT,
    Setting,
    attempted,
    copy_rate,
    first_of,
    made_up,
    measured,
    model,
    peak_of,
    slower_by,
)
from benchmarks.harness import Case, Rates, Target, fastest, publish, ratio
from benchmarks.work import training, wait
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.engines import engine_for
from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute

# AdamW reads weight, gradient and two moments in fp32, and writes all but the gradient.
OPTIMIZER_BYTES = 28


def large(setting: Setting) -> None:
    """Full fine-tuning at about 16,000 tokens a step; writes gpu-large.json."""
    data, batch_size = _large(setting)
    cases = full_cases(setting, data, batch_size, setting.steps)
    rates, about = compiled_last("large", cases, setting)
    peak = ceiling.rate(setting.config, round(batch_size * length(data)), torch.bfloat16, setting.device.type)
    ours = best_of(rates, "mtbert")
    share = statistics.median(rates[ours]) * ceiling.flops_per_token(setting.config) / peak
    publish(
        setting.name("large"),
        UNIT,
        rates,
        ours=ours,
        targets=[Target("share of the card's bf16 matrix rate", share, 0.45), *_beside_peers(rates, ours)],
        matrix_flops=peak,
        share_of_matrix_rate=share,
        batch_size=batch_size,
        largest_difference_to_cpu=agreement(setting, data),
        **about,
    )


def small(setting: Setting) -> None:
    """Batch 16, where a step's time is mostly the optimizer's memory traffic and launches; writes gpu-16.json."""
    data, batch_size = made_up("quora", 400 if setting.tiny else 40_000), 16
    steps = setting.steps * (1 if setting.tiny else 10)  # these steps are short
    cases = full_cases(setting, data, batch_size, steps)
    rates, about = compiled_last("16", cases, setting)
    ours = best_of(rates, "mtbert")
    facts = optimizer_traffic(setting, batch_size * length(data) / statistics.median(rates[ours]))
    targets = [
        *_beside_peers(rates, ours),
        Target("share of a step that the optimizer's memory traffic takes", facts["optimizer_share"], 0.5),
    ]
    if "mtbert, graphs" in rates:
        facts["graphs_are"] = ratio(rates, "mtbert, graphs", "mtbert")
    publish(
        setting.name("16"),
        UNIT,
        rates,
        ours=ours,
        targets=targets,
        batch_size=batch_size,
        **facts,
        **about,
    )


def adapters(setting: Setting) -> None:
    """DoRA against LoRA and full fine-tuning in mtbert's engine, and against peft, at about 16,000 tokens a step: time, memory, the
    merged forward; writes gpu-adapters.json.
    """
    data, batch_size = _large(setting)
    cases: dict[str, Callable[[], Case]] = {}
    kinds: dict[str, Callable[[MultitaskModel], MultitaskModel]] = {
        "DoRA": partial(adapted, method="dora"),
        "LoRA": partial(adapted, method="lora"),
        "full": lambda plain: plain,
    }
    for name, adapt in kinds.items():
        for how, compute in (("", setting.compute), (", graphs", setting.graphs)):
            cases[f"{name}{how}"] = partial(_adapted, adapt, setting, compute, data, batch_size)
    for name, dora in (("peft LoRA", False), ("peft DoRA", True)):
        cases[name] = partial(_peft, dora, setting, data, batch_size)
    peaks, _ = attempted({name: partial(peak_of, cases[name], setting.device) for name in kinds}, setting)
    rates, about = measured("adapters", cases, setting, lambda found: first_of(found, "DoRA, graphs", "DoRA"))
    how = ", graphs" if all(f"{name}, graphs" in rates for name in kinds) else ""
    targets = [
        *slower_by("time of a DoRA step over LoRA's", rates, f"DoRA{how}", f"LoRA{how}", 1.05),
        *slower_by("time of a DoRA step over full fine-tuning's", rates, f"DoRA{how}", f"full{how}", 1.0),
        *slower_by("the same two without graphs: over LoRA's", rates, "DoRA", "LoRA", 1.05),
        *slower_by("the same two without graphs: over full fine-tuning's", rates, "DoRA", "full", 1.0),
    ]
    if "peft DoRA" in rates and {"DoRA", "DoRA, graphs"} & rates.keys():
        targets.append(Target("times peft's DoRA", ratio(rates, best_of(rates, "DoRA"), "peft DoRA"), 4.0))
    if (ours := peaks.get("DoRA")) and (theirs := peaks.get("LoRA")):
        targets.append(Target("peak memory of steps over LoRA's", ours / theirs, 1.02, True))

    def merged() -> float:
        pair = adapted(model(setting.config), "dora"), model(setting.config)
        return merged_forward(*pair, data, TOKENS, setting.compute, batch_size, setting.steps)

    forward, failed = attempted({"merged forward": merged}, setting)
    targets += [Target("merged forward over the plain model's", found, 1.02, True) for found in forward.values()]
    about["failed"] |= failed
    publish(
        setting.name("adapters"),
        UNIT,
        rates,
        ours=first_of(rates, f"DoRA{how}", "DoRA, graphs"),
        targets=targets,
        rank=RANK,
        batch_size=batch_size,
        peak_bytes_of_steps=peaks,
        **about,
    )


def compiled_last(part: str, cases: Mapping[str, Callable[[], Case]], setting: Setting) -> tuple[Rates, dict[str, Any]]:
    """As `measured`. Compiling takes a minute or more, so the other cases are measured and written before it begins."""
    start = partial(best_of, start="mtbert")
    quick = {name: case for name, case in cases.items() if "compiled" not in name}
    first = measured(part, quick, setting, start)
    try:
        return measured(part, cases, setting, start)
    except TimeoutError:
        rates, about = first
        late = {name: "there was no time for it" for name in cases if name not in quick}
        return rates, about | {"failed": about["failed"] | late}


def full_cases(setting: Setting, data: Split, batch_size: int, steps: int) -> dict[str, Callable[[], Case]]:
    """mtbert with and without graphs; transformers in a plain loop and under its Trainer, each also compiled."""

    def ours(graphs: bool) -> Case:
        compute = setting.graphs if graphs else setting.compute
        return training(model(setting.config), data, TOKENS, compute, batch_size, steps)

    def theirs(compiled: bool) -> nn.Module:
        encoder = peers.random_bert(setting.config)
        backend = "eager" if setting.tiny else "inductor"  # compiling takes longer than all the rest of a dry run
        return torch.compile(encoder, dynamic=True, backend=backend) if compiled else encoder  # type: ignore[return-value]

    def trainer(compiled: bool) -> Case:
        return peers.trainer(
            peers.Classifier(theirs(compiled), 1), data, TOKENS, batch_size=batch_size, steps=steps, bf16=True,
            device=setting.device.type,
        )  # fmt: skip

    def plain(compiled: bool) -> Case:
        return _peer(theirs(compiled), setting, data, batch_size, steps)

    cases: dict[str, Callable[[], Case]] = {
        "mtbert": lambda: ours(False),
        "mtbert, graphs": lambda: ours(True),
        "transformers sdpa": lambda: plain(False),
        "transformers sdpa, compiled": lambda: plain(True),
    }
    if setting.trainer:
        cases |= {"Trainer sdpa": lambda: trainer(False), "Trainer sdpa, compiled": lambda: trainer(True)}
    return cases


def optimizer_traffic(setting: Setting, step_seconds: float) -> dict[str, Any]:
    """The time of AdamW, the time of a copy of as many bytes, and the latter's share of a step."""
    weights = list(model(setting.config).to(setting.device).parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-5, eps=1e-6, weight_decay=0.0, fused=True)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    seconds = []
    for _ in range(10):
        wait(setting.device)
        began = time.perf_counter()
        optimizer.step()
        wait(setting.device)
        seconds.append(time.perf_counter() - began)
    count, rate = sum(weight.numel() for weight in weights), copy_rate(setting.device)
    least = OPTIMIZER_BYTES * count / rate
    return {
        "parameters": count,
        "copy_bytes_per_second": rate,
        "step_seconds": step_seconds,
        "optimizer_seconds": min(seconds[1:]),
        "optimizer_seconds_at_copy_rate": least,
        "optimizer_share": least / step_seconds,
    }


def agreement(setting: Setting, data: Split) -> float:
    """The largest difference between logits on the device in bf16 and on the CPU in fp32, over 64 examples."""
    one = model(setting.config).eval()
    batch = make_batch("quora", data, np.arange(64), one.views("quora"), TOKENS)
    with torch.inference_mode():
        exact = one(batch)
        engine = engine_for(one.to(setting.device), setting.compute)
        with engine.inference():
            found = one(batch.to(setting.device)).float().cpu()
    return float((exact - found).abs().max())


def length(data: Split) -> float:
    """Mean tokens of a cross-encoded pair."""
    return float(np.mean(np.diff(data.offsets1))) * 2 + 3


def best_of(rates: Mapping[str, Sequence[float]], start: str) -> str:
    """The fastest case whose name starts with `start`.

    Raises:
        MtbertError: there is none.
    """
    if found := [name for name in rates if name.startswith(start)]:
        return fastest(rates, found)
    raise MtbertError(f"no case of {start} runs; its errors are above")


def _adapted(
    adapt: Callable[[MultitaskModel], MultitaskModel], setting: Setting, compute: Compute, data: Split, batch_size: int
) -> Case:
    return training(adapt(model(setting.config)), data, TOKENS, compute, batch_size, setting.steps)


def _peft(dora: bool, setting: Setting, data: Split, batch_size: int) -> Case:
    encoder = peers.adapted(peers.random_bert(setting.config), RANK, dora)
    return _peer(encoder, setting, data, batch_size, setting.steps)


def _peer(encoder: nn.Module, setting: Setting, data: Split, batch_size: int, steps: int) -> Case:
    return peers.training(
        peers.Classifier(encoder, 1), data, TOKENS, batch_size=batch_size, steps=steps, bf16=True, grouped=True,
        device=setting.device.type,
    )  # fmt: skip


def _large(setting: Setting) -> tuple[Split, int]:
    """Pairs, and the number of them that has about 16,000 tokens."""
    data = made_up("quora", 400 if setting.tiny else 40_000)
    return data, 16 if setting.tiny else round(16_384 / length(data))


def _beside_peers(rates: Mapping[str, Sequence[float]], ours: str) -> list[Target]:
    found = [best_of(rates, start) for start in ("Trainer", "transformers") if any(n.startswith(start) for n in rates)]
    return [Target(f"times {name}", ratio(rates, ours, name), 3.0) for name in found]
