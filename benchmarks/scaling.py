"""Training tokens per second by batch size, sequence length and threads, as a figure."""

import statistics
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.harness import alternate, publish
from benchmarks.work import minilm, stepper
from mtbert.data.batches import ROWS, Batch
from mtbert.data.tokens import lay_out
from mtbert.tasks.losses import cross_entropy
from mtbert.training.compute import resolve

BATCH_SIZES = (8, 16, 32, 64, 128, 256)
LENGTHS = (16, 32, 64, 128, 256, 512)
MIDDLE = 32  # the length while the batch grows, and the batch while the length grows
MOST = 16384  # tokens a step


def main(rounds: int = 3, most: Annotated[int, typer.Option(help="tokens a step")] = MOST) -> None:
    """Full fine-tuning of MiniLM-L6 on random wordpieces, in sequences of equal length."""
    compute = resolve("cpu", "auto", "auto")  # `benchmarks.gpu` measures the card
    engine = stepper(minilm(), compute, MIDDLE)
    points = {(size, MIDDLE) for size in BATCH_SIZES} | {(MIDDLE, length) for length in LENGTHS}
    rates: dict[str, list[float]] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)

        def case(batch: Batch) -> float:
            engine.step(batch, cross_entropy, 0, 1)
            return float(batch.stream.tokens)

        cases = {
            f"{threads} threads, batch {size}, length {length}": partial(case, _batch(size, length))
            for size, length in sorted(points)
            if size * length <= most
        }
        rates |= alternate(cases, rounds)
    path = publish("scaling", "tokens/s", rates, ours=next(iter(rates)), precision=compute.describe()["precision"])
    _draw({name: statistics.median(values) for name, values in rates.items()}, path.with_suffix(".svg"))


def _batch(size: int, length: int) -> Batch:
    rng = np.random.default_rng(length)
    sequences = [(rng.integers(1000, 30000, length), length) for _ in range(size)]
    return Batch("sst", ("u",), lay_out(sequences, ROWS), torch.from_numpy(rng.integers(0, 5, size).astype(np.float32)))


def _draw(rates: dict[str, float], path: Path) -> None:
    import matplotlib.pyplot as plt

    from mtbert.report.figures import STYLE

    with plt.style.context(["default", STYLE]):  # equal rates give equal bytes
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
        for axis, sweep, fixed in ((axes[0], "batch", f"length {MIDDLE}"), (axes[1], "length", f"batch {MIDDLE}")):
            for threads, marker in ((1, "o"), (2, "s")):
                points = sorted(
                    (int(name.split(f"{sweep} ")[1].split(",")[0]), rate)
                    for name, rate in rates.items()
                    if name.startswith(f"{threads} ") and f"{fixed}," in f"{name},"
                )
                axis.plot(*zip(*points, strict=True), marker=marker, label=f"{threads} thread{'s' * (threads > 1)}")
            axis.set(
                xscale="log",
                xlabel={"batch": f"batch size, {MIDDLE} tokens each", "length": f"tokens in each of {MIDDLE}"}[sweep],
            )
            axis.set_xticks([x for x, _ in points], [str(x) for x, _ in points])
            axis.minorticks_off()
        axes[0].set(ylabel="training tokens per second", ylim=(0, None))
        axes[0].legend()
        figure.savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    typer.run(main)
