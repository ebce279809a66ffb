"""Pair features: the cost of u, v and c in one pass; and (u, v, |u-v|) against training in sentence-transformers."""

import itertools
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import peers
from benchmarks.harness import Precision, Target, alternate, fastest, publish, ratio
from benchmarks.work import WARM_UP, batches, minilm, split, training, wrapper
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.training.compute import resolve


def main(
    batch_size: int = 32,
    rounds: int = 7,
    steps: Annotated[int, typer.Option(help="per case and round")] = 3,
    precision: Precision = "auto",
) -> None:
    """Tokens per second on the paraphrase task, for several features and for the peer with the same objective."""
    compute = resolve("cpu", precision, "auto")  # as the peers; `benchmarks.gpu` measures the card
    data, tokens = split("quora"), wrapper()
    features = {"u, v, |u-v|": ["u", "v", "|u-v|"], "c": ["c"], "u, v, c": ["u", "v", "c"]}
    cases = {
        f"mtbert {name}": training(minilm(wanted), data, tokens, compute, batch_size, steps)
        for name, wanted in features.items()
    }
    for theirs in peers.precisions(compute):
        for attention in ("sdpa", "eager"):
            peer = softmax_loss(data, tokens, batch_size, steps, theirs == "bf16", attention)
            cases[f"sentence-transformers {theirs} {attention} u, v, |u-v|"] = peer
    rates = alternate(cases, rounds, WARM_UP)
    median = {name: statistics.median(values) for name, values in rates.items()}
    ours = "mtbert u, v, |u-v|"
    best = fastest(rates, (name for name in rates if name.startswith("sentence")))
    apart = min(median[ours], median["mtbert c"])
    targets = [
        Target(f"times {best}", ratio(rates, ours, best), 3.0),
        Target("u, v, c: time per token over that of u, v or c alone", apart / median["mtbert u, v, c"], 1.05, True),
    ]
    publish("pairs", "real tokens/s", rates, ours=ours, targets=targets, precision=compute.describe()["precision"])


def softmax_loss(
    data: Split, tokens: Wrapper, batch_size: int, steps: int, bf16: bool, attention: str
) -> Callable[[], float]:
    """A case: SentenceTransformer with its SoftmaxLoss: [u; v; |u-v|] into a linear layer, two padded passes a step."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import SoftmaxLoss

    settings = {"attn_implementation": attention}
    model = SentenceTransformer(str(peers.minilm_folder()), device="cpu", model_kwargs=settings).train()
    size = model.get_embedding_dimension()
    assert size is not None and data.labels is not None and data.ids2 is not None and data.offsets2 is not None
    loss = SoftmaxLoss(model, embedding_dimension=size, num_labels=2)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-5, eps=1e-6, weight_decay=0.0, fused=True)
    chosen = batches(len(data), batch_size, 0)
    sides = ((data.ids1, data.offsets1), (data.ids2, data.offsets2))

    def case() -> float:
        done = 0
        for rows in itertools.islice(chosen, steps):
            sentences = []
            for ids, offsets in sides:
                alone = Split(data.task, data.split, data.folder, ids, offsets, None, None, None)
                inputs, real = peers.padded(alone, rows, tokens)
                sentences.append(inputs)
                done += real
            assert data.labels is not None
            labels = torch.from_numpy(np.asarray(data.labels[rows])).long()
            with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
                value = loss(sentences, labels)
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(done)

    return case


if __name__ == "__main__":
    typer.run(main)
