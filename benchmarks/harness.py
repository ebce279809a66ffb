"""Time cases in alternating rounds; write medians, spread, machine and versions to reports/benchmarks/NAME.json."""

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from mtbert.files import atomic_json
from mtbert.pipeline.provenance import commit
from mtbert.training.compute import machine

RESULTS = Path("reports/benchmarks")
PACKAGES = ("mtbert", "torch", "transformers", "peft", "accelerate", "sentence-transformers", "datasets", "dvc")


class Timed(NamedTuple):
    """The result of a case that measures its own time: its work, and the seconds it took."""

    work: float
    seconds: float


Case = Callable[[], float | Timed]


class Target(NamedTuple):
    """A target: `value` must be at most `bound` if `at_most` is set, else at least."""

    what: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def described(self) -> dict[str, Any]:
        """JSON values."""
        return self._asdict() | {"met": self.met}


Rates = dict[str, list[float]]

Precision = Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="of mtbert; peers are timed in fp32 too")]


def alternate(
    cases: Mapping[str, Case],
    rounds: int,
    warmup: int = 1,
    ends: float = math.inf,
    each: Callable[[Rates], None] = lambda _rates: None,
) -> Rates:
    """Work per second of each case, one value per round. Every round runs all cases, in an order that rotates and reverses.

    The order matters because the first case of a shape pays for compiling its matrix products, which later ones reuse.

    Args:
        cases: each does some work and returns its amount (tokens, rows).
        warmup: rounds that do not count.
        ends: when `time.monotonic` is this, no further case starts, and a round that is not complete does not count.
        each: is called after every round that counts, with the rates so far.

    Raises:
        TimeoutError: there was no time for one round.
    """
    rates: Rates = {name: [] for name in cases}
    names = list(cases)
    for number in range(-warmup, rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        found: dict[str, float] = {}
        for name in order if number % 2 else reversed(order):
            if time.monotonic() >= ends:
                if number <= 0:
                    raise TimeoutError("there was no time for one round")
                return rates
            began = time.perf_counter()
            done = cases[name]()
            work, seconds = done if isinstance(done, Timed) else (done, time.perf_counter() - began)
            found[name] = work / seconds
        if number >= 0:
            for name, rate in found.items():
                rates[name].append(rate)
            each(rates)
        Console(stderr=True).print(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up", style="dim")
    return rates


def ratio(rates: Mapping[str, Sequence[float]], name: str, peer: str) -> float:
    """How many times as fast `name` is as `peer`: the median of the rounds' ratios, so that slow phases of the machine cancel."""
    return statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates[peer], strict=True))


def fastest(rates: Mapping[str, Sequence[float]], names: Iterable[str]) -> str:
    """The one of these cases with the highest median."""
    return max(names, key=lambda name: statistics.median(rates[name]))


def publish(
    name: str,
    unit: str,
    rates: Mapping[str, Sequence[float]],
    *,
    ours: str,
    targets: Sequence[Target] = (),
    **facts: Any,
) -> Path:
    """Print the rates and write them as `write` does.

    Args:
        unit: of the rates, such as tokens/s.
        ours: the case that the others are compared with.
        facts: further JSON values of the benchmark.

    Returns:
        the file.
    """
    cases = summary(rates, ours)
    table = Table(title=f"{name}, {unit}")
    for column in ("case", "median", "quartiles", f"{ours} is"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case, row in cases.items():
        quartiles = f"{row['quartiles'][0]:,.0f} to {row['quartiles'][1]:,.0f}"
        table.add_row(case, f"{row['median']:,.0f}", quartiles, f"{row[f'{ours} is']:.2f}×")
    Console().print(table)
    for target in targets:
        bound = f"at {'most' if target.at_most else 'least'} {target.bound:g}"
        Console().print(f"{target.what}: {target.value:.3g} ({bound}): {'met' if target.met else 'NOT MET'}")
    result = {
        "unit": unit,
        "ours": ours,
        "cases": cases,
        "targets": [target.described() for target in targets],
        **facts,
    }
    return write(name, result)


def summary(rates: Mapping[str, Sequence[float]], ours: str) -> dict[str, dict[str, Any]]:
    """The median, the quartiles and all rounds of each case, and how many times as fast `ours` is."""
    return {case: _spread(values) | {f"{ours} is": ratio(rates, ours, case)} for case, values in rates.items()}


def write(name: str, result: Mapping[str, Any]) -> Path:
    """Write JSON values, with machine, versions and command, to reports/benchmarks/NAME.json, or NAME-fp32.json.

    A result in fp32 thus does not replace one in bf16, when a machine without bf16 measures.
    """
    name += "-fp32" * (result.get("precision") == "fp32")
    command = "python -m " + " ".join([f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    atomic_json(path, {"benchmark": name, "targets": [], **result, "command": command, "where": where()})
    return path


def where() -> dict[str, Any]:
    """Machine, versions, commit and date."""
    return {
        "machine": machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {package: _version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "code": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "quartiles": [quartiles[0], quartiles[2]], "rounds": list(values)}
