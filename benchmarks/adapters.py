"""DoRA at rank 16 against LoRA, full fine-tuning and peft: time and peak memory of a step."""

import functools
import statistics
from collections.abc import Callable
from typing import Annotated

import typer

from benchmarks import peers
from benchmarks.harness import Target, alternate, fastest, publish, ratio
from benchmarks.memory import peak_of, print_peak
from benchmarks.work import WARM_UP, batches, minilm, split, training, wait, wrapper
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_adapter, merge
from mtbert.peft.registry import ADAPTERS
from mtbert.training.compute import Compute, resolve

RANK = 16
CLOSE = 30  # rounds when our own cases are compared, whose targets are a few percent apart
PEAKS = 5  # processes for the peak memory of each of the two cases that are compared


def main(
    batch_size: int = 32,
    rounds: int = 7,
    steps: Annotated[int, typer.Option(help="per case and round")] = 3,
    memory_of: Annotated[str, typer.Option(help="take some steps of this case only, and print its peak memory")] = "",
) -> None:
    """Tokens per second on the cross-encoded paraphrase task; only the adapters and the head train."""
    compute = resolve("cpu", "auto", "auto")  # as the peers; `benchmarks.gpu` measures the card
    if memory_of:
        print_peak(lambda: _cases(compute.bf16)[memory_of](compute, batch_size, steps))
        return
    cases = {name: make(compute, batch_size, steps) for name, make in _cases(compute.bf16).items()}
    rates = alternate(cases, rounds, WARM_UP)
    own = alternate({name: cases[name] for name in ("DoRA", "LoRA", "full")}, CLOSE)
    repeats = {"DoRA": PEAKS, "LoRA": PEAKS}
    peaks = {
        name: [peak_of("benchmarks.adapters", name, batch_size, steps) for _ in range(repeats.get(name, 1))]
        for name in cases
    }
    memory = statistics.median(peaks["DoRA"]) / statistics.median(peaks["LoRA"])
    models = adapted(minilm(["c"]), "dora"), minilm(["c"])
    merged = merged_forward(*models, split("quora"), wrapper(), compute, batch_size, steps)
    best_of_peft = [
        fastest(rates, (name for name in rates if name.startswith("DoRA, peft") and name.endswith(order)))
        for order in ("same batches", "length-grouped")
    ]
    targets = [
        Target("time of a step over LoRA's", ratio(own, "LoRA", "DoRA"), 1.05, True),
        Target("time of a step over full fine-tuning's", ratio(own, "full", "DoRA"), 1.0, True),
        *(Target(f"times {best}", ratio(rates, "DoRA", best), 4.0) for best in best_of_peft),
        Target("peak memory of steps over LoRA's", memory, 1.02, True),
        Target("merged forward over the plain model's", merged, 1.02, True),
    ]
    publish(
        "adapters",
        "real tokens/s",
        rates,
        ours="DoRA",
        targets=targets,
        own_rounds=own,
        peak_bytes_of_steps=peaks,
        precision=compute.describe()["precision"],
    )


def _cases(bf16: bool) -> dict[str, Callable[[Compute, int, int], Callable[[], float]]]:
    """Our cases, and peft on the same batches and on length-grouped ones."""
    cases = {
        "DoRA": lambda *work: _ours(adapted(minilm(["c"]), "dora"), *work),
        "LoRA": lambda *work: _ours(adapted(minilm(["c"]), "lora"), *work),
        "full": lambda *work: _ours(minilm(["c"]), *work),
    }
    best = "bf16" if bf16 else "fp32"
    for kind, attention, precision, grouped in (
        ("LoRA", "sdpa", best, True),
        ("DoRA", "sdpa", best, True),
        ("DoRA", "eager", best, True),
        ("DoRA", "sdpa", best, False),
        ("DoRA", "eager", best, False),
        ("DoRA", "sdpa", "fp32", True),
    ):
        name = f"{kind}, peft {precision}, {attention}, {'length-grouped' if grouped else 'same batches'}"
        cases[name] = functools.partial(_peft, kind == "DoRA", attention, precision == "bf16", grouped)
    return cases


def adapted(model: MultitaskModel, method: str) -> MultitaskModel:
    """Add an adapter to the model, in place; only the adapter and the head train."""
    own = {"norm_gradient": "exact"} if method == "dora" else {}
    settings = {"rank": RANK, "alpha": RANK, "dropout": 0.0, "train_rest": False, "learning_rate": 1e-3, **own}
    adapter = ADAPTERS[method].model_validate({"method": method, "start_from": "pretrained", **settings})
    add_adapter(model, adapter, seed=0)
    return model


def _ours(model: MultitaskModel, compute: Compute, batch_size: int, steps: int) -> Callable[[], float]:
    return training(model, split("quora"), wrapper(), compute, batch_size, steps)


def _peft(
    dora: bool, attention: str, bf16: bool, grouped: bool, compute: Compute, batch_size: int, steps: int
) -> Callable[[], float]:
    model = peers.Classifier(peers.adapted(peers.bert(attention), RANK, dora), 1)
    return peers.training(
        model, split("quora"), wrapper(), batch_size=batch_size, steps=steps, bf16=bf16, grouped=grouped,
        device=compute.device.type,
    )  # fmt: skip


def merged_forward(
    merged: MultitaskModel,
    plain: MultitaskModel,
    data: Split,
    tokens: Wrapper,
    compute: Compute,
    batch_size: int,
    steps: int,
) -> float:
    """Time of the forward of an adapted model, which is merged first, over that of a plain model of the same size."""
    merge(merged)

    def forward(model: MultitaskModel) -> Callable[[], float]:
        chosen = batches(len(data), batch_size, 0)
        engine = engine_for(model.to(compute.device).eval(), compute)

        def case() -> float:
            with engine.inference():
                for _ in range(steps):
                    batch = make_batch("quora", data, next(chosen), model.views("quora"), tokens)
                    model(batch.to(compute.device))
            wait(compute.device)
            return float(steps)

        return case

    return ratio(alternate({"plain": forward(plain), "merged": forward(merged)}, 60, WARM_UP), "plain", "merged")


if __name__ == "__main__":
    typer.run(main)
