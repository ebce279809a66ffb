"""Full fine-tuning of MiniLM-L6, with dropout and trained embeddings, against transformers and its Trainer."""

from typing import Annotated

import torch
import typer

from benchmarks import ceiling, peers
from benchmarks.harness import Case, Precision, Target, Timed, alternate, fastest, publish, ratio
from benchmarks.work import WARM_UP, minilm, split, training, wrapper
from mtbert.training.compute import resolve

PRODUCTS = "a step's matrix products alone"  # what a machine whose speed varies allows in each round


def main(
    task: Annotated[str, typer.Option(help="sst, or a pair task (cross-encoded: one sequence per pair)")] = "sst",
    batch_size: int = 32,
    pooling: Annotated[str, typer.Option(help="mean, or cls with BERT's pooler")] = "mean",
    rounds: int = 7,
    steps: Annotated[int, typer.Option(help="per case and round")] = 4,
    precision: Precision = "auto",
) -> None:
    """Tokens per second of mtbert and of each peer at its best settings on this machine."""
    compute = resolve("cpu", precision, "auto")  # as the peers; `benchmarks.gpu` measures the card
    data, tokens = split(task), wrapper()
    outputs = 5 if task == "sst" else 1
    model = minilm(["c"], pooling=pooling)
    cases: dict[str, Case] = {"mtbert": training(model, data, tokens, compute, batch_size, steps)}
    for theirs in peers.precisions(compute):
        bf16 = theirs == "bf16"
        for attention in ("sdpa", "eager"):
            for order, grouped in (("shuffled", False), ("length-grouped", True)):
                peer = peers.Classifier(peers.bert(attention, pooling == "cls"), outputs, pooling=pooling)
                cases[f"transformers {theirs} {attention} {order}"] = peers.training(
                    peer, data, tokens, batch_size=batch_size, steps=steps, bf16=bf16, grouped=grouped
                )
        peer = peers.Classifier(peers.bert("sdpa", pooling == "cls"), outputs, pooling=pooling)
        cases[f"Trainer {theirs} sdpa length-grouped"] = peers.trainer(
            peer, data, tokens, batch_size=batch_size, steps=steps, bf16=bf16
        )
    tokens_per_step = round(sum(len(peers.sequence(data, row, tokens)[0]) for row in range(256)) / 256 * batch_size)
    flops = tokens_per_step * ceiling.flops_per_token(
        model.encoder.config, batch_size / tokens_per_step if pooling == "cls" else 1.0
    )
    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    cases[PRODUCTS] = lambda: Timed(tokens_per_step, flops / ceiling.rate(model.encoder.config, tokens_per_step, dtype))
    rates = alternate(cases, rounds, WARM_UP)
    targets = []
    for theirs in peers.precisions(compute):
        best = fastest(rates, (name for name in rates if f" {theirs} " in name))
        bound = 3.0 if batch_size <= 8 else 7.0 if compute.bf16 and theirs == "fp32" else 3.5
        targets.append(Target(f"times {best}", ratio(rates, "mtbert", best), bound))
    if batch_size > 8:
        targets.append(Target("share of the machine's matrix-product rate", ratio(rates, "mtbert", PRODUCTS), 0.6))
    publish(
        f"training-{task}-{batch_size}{'-cls' * (pooling == 'cls')}",
        "real tokens/s",
        rates,
        ours="mtbert",
        targets=targets,
        precision=compute.describe()["precision"],
        tokens_per_step=tokens_per_step,
    )


if __name__ == "__main__":
    typer.run(main)
