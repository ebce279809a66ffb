"""What the GPU benchmarks share: their setting, a BERT-base with random weights, random data, and the card's own rates."""

import gc
import math
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from benchmarks.harness import Case, Rates, Target, alternate, ratio, summary, write
from benchmarks.work import multitask, wait
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, initialise
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute

TOKENS = Wrapper(cls=101, sep=102, max_tokens=256)
# Wordpieces of a sentence: the minimum, and how many more on average. Quora's questions have 13.7 on average; the
# values for SST and STS are about those of the course's files.
LENGTHS = {"sst": (4, 19.7), "quora": (4, 9.7), "sts": (4, 10.0)}
UNIT = "real tokens/s"
Found = TypeVar("Found")


class Setting(NamedTuple):
    """How all parts of the benchmark are measured.

    Attributes:
        config: the encoder's size.
        compute: device and precision.
        tiny: a dry run on a toy model, whose figures mean nothing.
        rounds, steps: rounds of each case, and steps in each round.
        ends: when `time.monotonic` is this, a part starts no further case.
        trainer: measure transformers' Trainer too, not only a plain loop.
    """

    config: BertConfig
    compute: Compute
    tiny: bool
    rounds: int
    steps: int
    ends: float = math.inf
    trainer: bool = True

    @property
    def over(self) -> bool:
        """Whether the part's time is up."""
        return time.monotonic() >= self.ends

    def name(self, part: str) -> str:
        """The name of a part's result file; those of a dry run are in a folder of their own."""
        return f"{'rehearsal/' if self.tiny else ''}gpu-{part}"

    @property
    def graphs(self) -> Compute:
        """The same device and precision, with CUDA graphs."""
        return self.compute._replace(graphs=True)

    @property
    def device(self) -> torch.device:
        return self.compute.device


def setting_for(compute: Compute, tiny: bool, rounds: int = 5, steps: int = 10) -> Setting:
    """The setting for BERT-base, or for a toy model."""
    if tiny:
        return Setting(BertConfig(layers=2, hidden=32, heads=2, intermediate=64), compute, True, 2, 2)
    return Setting(BertConfig(), compute, False, rounds, steps)


def model(config: BertConfig, dropout: float = 0.1) -> MultitaskModel:
    """A cross-encoding model with BERT's initialisation."""
    torch.manual_seed(0)
    return multitask(config, ["c"], dropout, lambda encoder: encoder.apply(initialise))


def made_up(task: str, rows: int) -> Split:
    """Random wordpieces, in sentences of the task's typical length."""
    rng = np.random.default_rng(0)
    least, more = LENGTHS[task]

    def side() -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate(([0], np.cumsum(least + rng.poisson(more, rows)))).astype(np.int64)
        return rng.integers(1000, 30_000, offsets[-1]).astype(np.uint16), offsets

    first = side()
    second: tuple[np.ndarray | None, np.ndarray | None] = side() if task != "sst" else (None, None)
    labels = rng.integers(0, 2, rows).astype(np.float32)
    return Split(task, "train", Path(), *first, *second, labels)


def attempted(works: Mapping[str, Callable[[], Found]], setting: Setting) -> tuple[dict[str, Found], dict[str, str]]:
    """What each work returns, and why others failed, so that one failure does not stop the benchmark.

    Works for which there is no time count as failed.
    """
    done, failed = {}, {}
    for name, work in works.items():
        if setting.over:
            failed[name] = "there was no time for it"
            continue
        try:
            done[name] = work()
        except Exception as error:
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"[:500]
    return done, failed


def first_of(rates: Rates, *names: str) -> str:
    """The first of these cases that was measured; if none was, the first case of all."""
    return next(name for name in (*names, *rates) if name in rates)


def slower_by(what: str, rates: Rates, name: str, other: str, bound: float) -> list[Target]:
    """The target for the time of a case over that of another, if both were measured."""
    return [Target(what, ratio(rates, other, name), bound, True)] if name in rates and other in rates else []


def measured(
    part: str, cases: Mapping[str, Callable[[], Case]], setting: Setting, ours: Callable[[Rates], str]
) -> tuple[Rates, dict[str, Any]]:
    """The rates of a part's cases, and for its result: rounds, rounds that were wanted, and the cases that failed.

    The result file is written after every round, so that nothing is lost if the next one does not end.

    Args:
        ours: chooses the case that the others are compared with.

    Raises:
        TimeoutError: there was no time for one round.
        MtbertError: no case runs.
    """

    def run_once(make: Callable[[], Case]) -> Case:
        case = make()
        case()
        return case

    good, failed = attempted({name: partial(run_once, make) for name, make in cases.items()}, setting)
    if setting.over:
        raise TimeoutError("there was no time for one round")
    if not good:
        raise MtbertError("no case runs; the errors are above")

    def about(rates: Rates) -> dict[str, Any]:
        return {"rounds": len(rates[ours(rates)]), "rounds_wanted": setting.rounds, "failed": failed}

    def keep(rates: Rates) -> None:
        name = ours(rates)
        write(
            setting.name(part),
            {"unit": UNIT, "ours": name, "cases": summary(rates, name), **about(rates), "complete": False},
        )

    rates = alternate(good, setting.rounds, warmup=2, ends=setting.ends, each=keep)
    return rates, about(rates)


def free(device: torch.device) -> None:
    """Release memory that is no longer used, so that the next cases can have it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def launches(seen: torch.profiler.profile) -> int:
    """The number of kernels, copies and graphs that the host launched while it was profiled."""
    calls = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in seen.key_averages() if event.key.startswith(calls))


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy on the device; the best of twenty."""
    source = torch.zeros(2**20 if device.type == "cpu" else 2**28, device=device)
    goal, best = torch.empty_like(source), float("inf")
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        goal.copy_(source)
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * source.nbytes / best


def peak_of(make: Callable[[], Case], device: torch.device) -> int | None:
    """Peak bytes of a case, with its model and optimizer; None on a CPU, where `benchmarks.adapters` measures it."""
    free(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    make()()
    return int(torch.cuda.max_memory_allocated()) - before if device.type == "cuda" else None
