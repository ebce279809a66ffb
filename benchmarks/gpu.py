"""One GPU, in one go: full fine-tuning and DoRA at BERT-base size beside transformers and peft, and agreement with the CPU.

python -m benchmarks.gpu                        # on a machine with a CUDA device: some minutes
python -m benchmarks.gpu --device cpu --tiny    # a rehearsal of every line, for a machine without one
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import ceiling, peers
from benchmarks.harness import Target, alternate, publish, ratio
from benchmarks.work import multitask, training
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig, initialise
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import add_dora
from mtbert.training.compute import Compute, resolve

TOKENS = Wrapper(cls=101, sep=102, max_tokens=256)
RANK = 16


def main(
    device: str = "cuda",
    tiny: Annotated[bool, typer.Option(help="a toy encoder and few rows: a rehearsal")] = False,
    rounds: int = 5,
    steps: Annotated[int, typer.Option(help="per case and round")] = 10,
) -> None:
    """Tokens per second at about 16,000 tokens a step and at batch 8, random weights, Quora-like lengths."""
    compute = resolve(device, "bf16", "auto")
    config = BertConfig(layers=2, hidden=32, heads=2, intermediate=64) if tiny else BertConfig()
    data = pairs(400 if tiny else 40_000)
    length = float(np.mean(np.diff(data.offsets1))) * 2 + 3
    large = 16 if tiny else round(16_384 / length)
    if tiny:
        rounds, steps = 2, 2
    for batch_size in (large, 8):
        cases = {name: _synchronised(case, device) for name, case in _cases(config, data, compute, batch_size, steps)}
        rates = alternate(cases, rounds, warmup=2)
        peak = ceiling.rate(config, round(batch_size * length), torch.bfloat16, device)
        share = statistics.median(rates["mtbert"]) * ceiling.flops_per_token(config) / peak
        best = max((name for name in rates if "transformers" in name), key=lambda name: statistics.median(rates[name]))
        targets = [Target(f"times {best}", ratio(rates, "mtbert", best), 3.0)]
        if batch_size == large:
            targets += [
                Target("share of the card's bf16 matrix rate", share, 0.45),
                Target("time of a DoRA step over full fine-tuning's", ratio(rates, "mtbert", "mtbert DoRA"), 1.0, True),
                Target("times peft's DoRA", ratio(rates, "mtbert DoRA", "peft DoRA"), 4.0),
            ]
        publish(
            f"gpu-{'tiny-' if tiny else ''}{'large' if batch_size == large else '8'}",
            "real tokens/s",
            rates,
            ours="mtbert",
            targets=targets,
            matrix_flops=peak,
            share_of_matrix_rate=share,
            batch_size=batch_size,
            largest_difference_to_cpu=agreement(config, data, compute),
        )


def _cases(
    config: BertConfig, data: Split, compute: Compute, batch_size: int, steps: int
) -> list[tuple[str, Callable[[], float]]]:
    dora = model(config)
    add_dora(dora, rank=RANK, alpha=RANK, dropout=0.0, train_rest=False, exact_norm=True, seed=0)
    cases = [
        ("mtbert", training(model(config), data, TOKENS, compute, batch_size, steps)),
        ("mtbert DoRA", training(dora, data, TOKENS, compute, batch_size, steps)),
    ]
    encoders: dict[str, Any] = {
        "transformers sdpa": peers.random_bert(config, "sdpa"),
        "transformers sdpa, compiled": torch.compile(peers.random_bert(config, "sdpa"), dynamic=True),
        "peft LoRA": peers.adapted(peers.random_bert(config, "sdpa"), RANK, dora=False),
        "peft DoRA": peers.adapted(peers.random_bert(config, "sdpa"), RANK, dora=True),
    }
    for name, encoder in encoders.items():
        peer = peers.Classifier(encoder, 1)
        case = peers.training(
            peer, data, TOKENS, batch_size=batch_size, steps=steps, bf16=True, grouped=True, device=compute.device.type
        )
        cases.append((name, case))
    return cases


def model(config: BertConfig) -> MultitaskModel:
    """A cross-encoding model with BERT's initialisation."""
    torch.manual_seed(0)
    return multitask(config, ["c"], 0.1, lambda encoder: encoder.apply(initialise))


def pairs(rows: int) -> Split:
    """Random wordpieces in pairs, as long as Quora's questions: 13.7 on average."""
    rng = np.random.default_rng(0)

    def side() -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate(([0], np.cumsum(4 + rng.poisson(9.7, rows)))).astype(np.int64)
        return rng.integers(1000, 30_000, offsets[-1]).astype(np.uint16), offsets

    labels = rng.integers(0, 2, rows).astype(np.float32)
    return Split("quora", "train", Path(), *side(), *side(), labels)


def agreement(config: BertConfig, data: Split, compute: Compute) -> float:
    """The largest difference between logits of the device in bf16 and of the CPU in fp32, over 64 examples."""
    one = model(config).eval()
    batch = make_batch("quora", data, np.arange(64), one.views("quora"), TOKENS)
    with torch.inference_mode():
        exact = one(batch)
        one.to(compute.device)
        with compute.autocast():
            found = one(batch.to(compute.device)).float().cpu()
    return float((exact - found).abs().max())


def _synchronised(case: Callable[[], float], device: str) -> Callable[[], float]:
    def waited() -> float:
        work = case()
        if device == "cuda":
            torch.cuda.synchronize()
        return work

    return waited


if __name__ == "__main__":
    typer.run(main)
