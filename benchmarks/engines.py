"""The plain engine against the fast one, on the data that params.yaml names."""

from typing import Annotated

import numpy as np
import typer

from benchmarks.adapters import adapted
from benchmarks.harness import Case, Precision, alternate, publish, ratio
from benchmarks.work import LOSSES, WARM_UP, batches, minilm, split, wrapper
from mtbert.data.batches import make_batch
from mtbert.engines import engine_for
from mtbert.evaluation.predict import raw_scores
from mtbert.training.compute import Compute, resolve
from mtbert.training.engine import Plain
from mtbert.training.recipe import Recipe

KINDS = ("full", "lora", "dora")


def main(
    batch_size: int = 32,
    rounds: int = 7,
    steps: Annotated[int, typer.Option(help="per case and round")] = 3,
    precision: Precision = "auto",
) -> None:
    """Tokens per second on the cross-encoded paraphrase task: training in full, by LoRA and by DoRA, and prediction."""
    compute = resolve("cpu", precision, "auto")  # `benchmarks.gpu` measures the card
    cases: dict[str, Case] = {}
    for kind in (*KINDS, "prediction"):
        for fast in (True, False):
            cases[f"{kind}, {'fast' if fast else 'plain'}"] = _case(kind, fast, compute, batch_size, steps)
    rates = alternate(cases, rounds, WARM_UP)
    times = {kind: ratio(rates, f"{kind}, fast", f"{kind}, plain") for kind in (*KINDS, "prediction")}
    publish(
        "engines",
        "real tokens/s",
        rates,
        ours="full, fast",
        precision=compute.describe()["precision"],
        fast_over_plain=times,
    )
    print(", ".join(f"{kind}: {times[kind]:.2f} times the plain engine" for kind in times))


def _case(kind: str, fast: bool, compute: Compute, batch_size: int, steps: int) -> Case:
    model, data, tokens = minilm(["c"]), split("quora"), wrapper()
    if kind in ("lora", "dora"):
        adapted(model, kind)
    engine = engine_for(model.to(compute.device).train(), compute) if fast else Plain(model, compute)
    chosen, step = batches(len(data), batch_size, 0), 0
    if kind != "prediction":
        engine.optimizer(Recipe("sequential", "depletion", 1, batch_size, 1e-5))

    def train() -> float:
        nonlocal step
        done = 0
        for _ in range(steps):
            step += 1
            batch = make_batch("quora", data, next(chosen), model.views("quora"), tokens)
            engine.step(batch, LOSSES["quora"], 0, step)
            done += batch.stream.tokens
        return float(done)

    def predict() -> float:
        rows = np.concatenate([next(chosen) for _ in range(2 * steps)])
        with engine.inference():
            raw_scores(model, "quora", data, tokens, rows=rows)
        assert data.offsets2 is not None
        return float((np.diff(data.offsets1) + np.diff(data.offsets2) + 3)[rows].sum())

    return predict if kind == "prediction" else train


if __name__ == "__main__":
    typer.run(main)
