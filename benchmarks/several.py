"""Several small training runs at once on one card: total tokens per second, against one run alone.

Without NVIDIA's MPS, processes take turns on a card, so they can only gain the time in which one alone leaves it idle.
"""

import json
import subprocess
import sys
import time
from typing import Annotated

import typer

from benchmarks.card import TOKENS, Setting, made_up, model, setting_for
from benchmarks.harness import publish
from benchmarks.work import training
from mtbert.errors import MtbertError
from mtbert.training.compute import resolve

PROCESSES = (1, 2, 4)
SLICES = 3


def several(setting: Setting) -> None:
    """Measure batch 8, with and without graphs, in 1, 2 and 4 processes; writes gpu-several.json."""
    seconds = 0.2 if setting.tiny else 3.0
    rates: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for how in ("graphs", "eager"):
        for processes in PROCESSES[: 2 if setting.tiny else None]:
            if setting.over:
                raise TimeoutError(f"there was time for {len(rates)} of {2 * len(PROCESSES)} cases")
            name = f"{processes} x {how}"
            try:
                rates[name] = together(setting, processes, how == "graphs", seconds)
            except MtbertError as error:
                print(error, file=sys.stderr)
                failed[name] = str(error)
            if rates:
                part, ours = setting.name("several"), next(iter(rates))
                publish(part, "real tokens/s of all", rates, ours=ours, batch_size=8, failed=failed)
    if not rates:
        raise MtbertError("no case runs; the errors are above")


def together(setting: Setting, processes: int, graphs: bool, seconds: float) -> list[float]:
    """Total tokens per second of this many processes, one value per slice of time."""
    command = [sys.executable, "-m", "benchmarks.several", "--device", setting.device.type, "--seconds", str(seconds)]
    command += ["--graphs"] * graphs + ["--tiny"] * setting.tiny
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for process in running:  # wait for all before any starts
            _line(process, "ready")
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(_line(process)) for process in running]
        return [sum(slices) for slices in zip(*found, strict=True)]
    finally:
        for process in running:
            process.kill()
            process.wait()


def _line(process: subprocess.Popen[str], expected: str = "") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or (expected and line != expected):
        raise MtbertError(f"a process of benchmarks.several ended early ({line!r}); see its errors above")
    return line


def main(
    seconds: Annotated[float, typer.Option(help="of a slice")] = 3.0,
    device: str = "cuda",
    graphs: bool = False,
    tiny: Annotated[bool, typer.Option(help="a toy encoder")] = False,
) -> None:
    """One of the processes: prepare, wait for a line on stdin, then print the tokens per second of each slice of `seconds`."""
    setting = setting_for(resolve(device, "bf16", "auto"), tiny)
    compute = setting.graphs if graphs else setting.compute
    case = training(model(setting.config), made_up("quora", 4000), TOKENS, compute, 8, 5)
    for _ in range(2 if tiny else 40):  # by then most shapes are recorded
        case()
    print("ready", flush=True)
    sys.stdin.readline()
    rates = []
    for _ in range(SLICES):
        began, tokens, passed = time.perf_counter(), 0.0, 0.0
        while passed < seconds:
            tokens += case()
            passed = time.perf_counter() - began
        rates.append(tokens / passed)
    print(json.dumps(rates), flush=True)


if __name__ == "__main__":
    typer.run(main)
