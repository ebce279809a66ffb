"""CUDA graphs on one card: whether replayed steps equal plain ones, what recording costs, and how many launches a replay saves."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.card import TOKENS, Setting, free, launches, made_up, model
from benchmarks.harness import write
from benchmarks.work import batches, stepper, wait
from mtbert.data.batches import Batch, make_batch
from mtbert.fast.cuda.static import rows_for
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.losses import binary_cross_entropy
from mtbert.training.engine import Engine

BATCH = 8


def graphs(setting: Setting) -> None:
    """Measure on small batches and write gpu-graphs.json."""
    data, steps = made_up("quora", 400 if setting.tiny else 40_000), 8 if setting.tiny else 60
    chosen = batches(len(data), BATCH, 0)
    stream = [make_batch("quora", data, next(chosen), ("c",), TOKENS) for _ in range(steps)]
    measures: list[Callable[[], dict[str, Any]]] = [
        lambda: _costs(setting, stream),
        lambda: {"largest_difference_of_losses": _apart(setting, stream, (False, True), dropout=0.0)},
        lambda: {"largest_difference_of_two_replayed_runs": _apart(setting, stream, (True, True), dropout=0.1)},
    ]
    filler = float(np.mean([1 - batch.stream.tokens / (rows_for(batch.stream.tokens) or 1) for batch in stream]))
    result: dict[str, Any] = {"batch_size": BATCH, "filler": filler}
    for number, measure in enumerate(measures, start=1):
        if setting.over:
            raise TimeoutError(f"there was time for {number - 1} of {len(measures)} measurements")
        result |= measure()
        write(setting.name("graphs"), {**result, "complete": number == len(measures)})
    print(result)


def _apart(setting: Setting, stream: list[Batch], graphs: tuple[bool, bool], dropout: float) -> float:
    """The largest difference between the losses of two runs, each with graphs or without."""
    one, other = (_curve(setting, stream, graphs=each, dropout=dropout) for each in graphs)
    return float(np.abs(one - other).max())


def _curve(setting: Setting, stream: list[Batch], *, graphs: bool, dropout: float) -> np.ndarray:
    engine = stepper(model(setting.config, dropout), setting.graphs if graphs else setting.compute, BATCH)
    return np.array(
        [float(engine.step(batch, binary_cross_entropy, 0, step)) for step, batch in enumerate(stream, start=1)]
    )


def _costs(setting: Setting, stream: list[Batch]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, compute in (("eager", setting.compute), ("replayed", setting.graphs)):
        one: MultitaskModel = model(setting.config)
        engine = stepper(one, compute, BATCH)
        run = partial(_pass, engine, stream)
        first = _timed(setting, run)[1]
        host, whole = _timed(setting, run)
        result[name] = {"host_seconds": host / len(stream), "seconds": whole / len(stream)}
        result[name]["launches"] = _launches(setting, partial(_pass, engine, stream[:1]))
        if recorded := getattr(engine, "recorded", 0):
            result["recorded"], result["seconds_per_recording"] = recorded, (first - whole) / recorded
            result["waits"] = _waits(run)
        del one, engine, run
        free(setting.device)
    return result


def _pass(engine: Engine, stream: list[Batch]) -> None:
    for step, batch in enumerate(stream, start=1):
        engine.step(batch, binary_cross_entropy, 0, step)


def _timed(setting: Setting, work: Callable[[], None]) -> tuple[float, float]:
    """Seconds until the host has launched everything, and until the device has finished."""
    wait(setting.device)
    began = time.perf_counter()
    work()
    launched = time.perf_counter() - began
    wait(setting.device)
    return launched, time.perf_counter() - began


def _launches(setting: Setting, work: Callable[[], None]) -> int | None:
    """The number of kernels, copies and graphs that the host launches."""
    if setting.device.type != "cuda":
        return None
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as seen:
        work()
        wait(setting.device)
    return launches(seen)


def _waits(work: Callable[[], None]) -> str | None:
    """The first operation that waits for the device, or None."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return str(error)[:500]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None
