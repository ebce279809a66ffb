"""Every adapter method against full fine-tuning: time, peak memory and trained parameters of a step.

The settings are those of studies/zoo_small, so each method trains about as many parameters as LoRA of rank 4, or fewer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.harness import alternate, publish, ratio
from benchmarks.memory import peak_of, print_peak
from benchmarks.work import WARM_UP, minilm, split, training, wrapper
from mtbert.model.multitask import MultitaskModel
from mtbert.params import load_study
from mtbert.peft.convert import add_adapter
from mtbert.peft.registry import AnyAdapter
from mtbert.training.compute import Compute, resolve

STUDY = Path("studies/zoo_small/params.yaml")
FULL = "full fine-tuning"


def main(
    batch_size: int = 32,
    rounds: int = 7,
    steps: Annotated[int, typer.Option(help="per case and round")] = 3,
    memory_of: Annotated[str, typer.Option(help="take some steps of this case only, and print its peak memory")] = "",
) -> None:
    """Tokens per second on the cross-encoded paraphrase task; only the method's parameters and the head train."""
    compute, methods = resolve("cpu", "auto", "auto"), _methods()  # `benchmarks.gpu` measures the card
    if memory_of:
        print_peak(lambda: _case(_model(methods[memory_of]), compute, batch_size, steps))
        return
    models = {name: _model(adapter) for name, adapter in methods.items()}
    cases = {name: _case(model, compute, batch_size, steps) for name, model in models.items()}
    rates = alternate(cases, rounds, WARM_UP)
    facts: dict[str, Any] = {
        name: {
            "title": adapter.title if adapter else FULL,
            "trained": _trained(models[name]),
            "time": ratio(rates, FULL, name),
            "peak_bytes": peak_of("benchmarks.methods", name, batch_size, steps),
        }
        for name, adapter in methods.items()
    }
    precision = compute.describe()["precision"]
    publish("methods", "real tokens/s", rates, ours=FULL, methods=facts, precision=precision)


def _methods() -> dict[str, AnyAdapter | None]:
    """The study's methods, each with the settings of its first run in which only the method's parameters train."""
    found: dict[str, AnyAdapter | None] = {FULL: None}
    for run in load_study(STUDY).runs.values():
        if run.adapter:
            found.setdefault(run.adapter.method, run.adapter)
    return found


def _model(adapter: AnyAdapter | None) -> MultitaskModel:
    model = minilm(["c"])
    if adapter:
        add_adapter(model, adapter, seed=0)
    return model


def _trained(model: MultitaskModel) -> int:
    """Trained parameters of the encoder; the heads always train."""
    return sum(one.numel() for one in model.encoder.parameters() if one.requires_grad)


def _case(model: MultitaskModel, compute: Compute, batch_size: int, steps: int) -> Callable[[], float]:
    return training(model, split("quora"), wrapper(), compute, batch_size, steps)


if __name__ == "__main__":
    typer.run(main)
