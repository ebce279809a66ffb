"""The plain engine against the fast one, on the data that params.yaml names."""

from typing import Annotated

import numpy as np
import typer

from benchmarks.adapters import adapted
from benchmarks.harness import Case, Precision, alternate, publish, ratio
from benchmarks.work import WARM_UP, EngineOf, batches, minilm, split, training, wrapper
from mtbert.engines import engine_for
from mtbert.evaluation.predict import raw_scores
from mtbert.training.compute import Compute, resolve
from mtbert.training.engine import Plain

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
    engine_of: EngineOf = engine_for if fast else Plain
    if kind in ("lora", "dora"):
        adapted(model, kind)
    if kind != "prediction":
        return training(model, data, tokens, compute, batch_size, steps, engine_of)
    engine, chosen = engine_of(model, compute), batches(len(data), batch_size, 0)

    def predict() -> float:
        rows = np.concatenate([next(chosen) for _ in range(2 * steps)])
        with engine.inference():
            raw_scores(model, "quora", data, tokens, rows=rows)
        assert data.offsets2 is not None
        return float((np.diff(data.offsets1) + np.diff(data.offsets2) + 3)[rows].sum())

    return predict


if __name__ == "__main__":
    typer.run(main)
