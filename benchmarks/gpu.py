"""All GPU benchmarks: BERT-base training steps against transformers and peft, CUDA graphs, several runs at once, the paper's runs.

python -m benchmarks.gpu                        # on a machine with a CUDA device: a quarter of an hour
python -m benchmarks.gpu --part graphs          # one part alone; the option may be repeated
python -m benchmarks.gpu --device cpu --tiny    # a dry run without recording graphs, on a machine without a GPU

Each part writes its own reports/benchmarks/gpu-*.json when it is done. A part that fails does not stop the others.
"""

import traceback
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.card import free, setting_for
from benchmarks.card_graphs import graphs
from benchmarks.card_steps import large, small
from benchmarks.paper import paper
from benchmarks.several import several
from mtbert.training.compute import resolve


class Part(StrEnum):
    """Parts of the benchmark, in the order in which they run."""

    graphs = "graphs"
    large = "large"
    small = "small"
    several = "several"
    paper = "paper"


PARTS = {Part.graphs: graphs, Part.large: large, Part.small: small, Part.several: several, Part.paper: paper}


def main(
    device: str = "cuda",
    tiny: Annotated[bool, typer.Option(help="a dry run with a toy encoder and few rows")] = False,
    part: Annotated[list[Part] | None, typer.Option(help="only this part")] = None,
    rounds: int = 5,
    steps: Annotated[int, typer.Option(help="per case and round")] = 10,
) -> None:
    """Tokens per second at about 16,000 tokens a step and at batch 8, with random weights and data; and minutes of the paper's runs."""
    setting = setting_for(resolve(device, "bf16", "auto"), tiny, rounds, steps)
    failed = []
    for name in part or list(PARTS):
        Console(stderr=True).rule(name)
        try:
            PARTS[name](setting)
        except Exception:
            traceback.print_exc()
            failed.append(name.value)
        free(setting.device)
    if failed:
        Console(stderr=True).print(f"failed: {', '.join(failed)}; see their errors above")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
