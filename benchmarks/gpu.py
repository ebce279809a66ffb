"""All GPU benchmarks: BERT-base training steps against transformers and peft, CUDA graphs, several runs at once, the paper's runs.

python -m benchmarks.gpu --minutes 8            # on a machine with a CUDA device; without --minutes, until all rounds are done
python -m benchmarks.gpu --part graphs          # one part alone; the option may be repeated
python -m benchmarks.gpu --device cpu --tiny    # a dry run without recording graphs, on a machine without a GPU

The parts run in the order of their importance and share the time that is left. Each writes its reports/benchmarks/gpu-*.json after every
round, measurement or run, and gpu.md beside it shows them all, so that an interruption loses one of these at most. A part that fails does
not stop the others.
"""

import math
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.card import free, setting_for
from benchmarks.card_graphs import graphs
from benchmarks.card_passes import passes
from benchmarks.card_report import PAGE, markdown
from benchmarks.card_steps import adapters, large, small
from benchmarks.harness import RESULTS
from benchmarks.paper import paper
from benchmarks.several import several
from mtbert.files import atomic_write_text
from mtbert.training.compute import resolve


class Part(StrEnum):
    """Parts of the benchmark, in the order in which they run."""

    passes = "passes"
    graphs = "graphs"
    small = "small"
    paper = "paper"
    adapters = "adapters"
    large = "large"
    several = "several"


# What each does, and its share of the time.
PARTS = {
    Part.passes: (passes, 2),
    Part.graphs: (graphs, 1),
    Part.small: (small, 2),
    Part.paper: (paper, 3),
    Part.adapters: (adapters, 2),
    Part.large: (large, 2),
    Part.several: (several, 2),
}


def main(
    device: str = "cuda",
    tiny: Annotated[bool, typer.Option(help="a dry run with a toy encoder and few rows")] = False,
    part: Annotated[list[Part] | None, typer.Option(help="only this part")] = None,
    rounds: int = 5,
    steps: Annotated[int, typer.Option(help="per case and round")] = 10,
    trainer: Annotated[bool, typer.Option(help="also transformers' Trainer, not only a plain loop")] = True,
    minutes: Annotated[float, typer.Option(help="the limit of all parts together")] = math.inf,
) -> None:
    """Tokens per second at about 16,000 tokens a step and at batch 16, with random weights and data; and minutes of the paper's runs."""
    setting, console = setting_for(resolve(device, "bf16", "auto"), tiny, rounds, steps), Console(stderr=True)
    setting = setting._replace(trainer=trainer)
    folder, end, waiting = (RESULTS / setting.name("")).parent, time.monotonic() + 60 * minutes, part or list(PARTS)
    missing: dict[Part, str] = {}
    with _interrupted_at(60 * minutes):
        for number, name in enumerate(waiting):
            run, weight = PARTS[name]
            left, others = end - time.monotonic(), sum(PARTS[later][1] for later in waiting[number:])
            console.rule(name)
            try:
                run(setting._replace(ends=time.monotonic() + left * weight / others))
            except KeyboardInterrupt as interrupt:
                missing |= dict.fromkeys(waiting[number:], str(interrupt) or "interrupted")
                break
            except TimeoutError as late:
                missing[name] = str(late)
            except Exception as error:
                traceback.print_exc()
                missing[name] = f"{type(error).__name__}: {error}"
            finally:
                atomic_write_text(folder / PAGE, markdown(folder))
            free(setting.device)
    for name, why in missing.items():
        console.print(f"{name}: not complete: {why}", markup=False)
    if missing:
        raise typer.Exit(1)


@contextmanager
def _interrupted_at(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt when the time is up and on SIGTERM, as on Ctrl-C."""

    def interrupt(number: int, _frame: Any) -> None:
        raise KeyboardInterrupt("the time is up" if number == signal.SIGALRM else "stopped by a signal")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, seconds if math.isfinite(seconds) else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    typer.run(main)
