"""Prediction from text: a cross-encoded pair classifier against CrossEncoder.predict and transformers' pipeline.

All three compute the same function: BERT's pooler of [CLS] and one linear layer, with the same weights.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import peers
from benchmarks.harness import Precision, Target, alternate, fastest, publish, ratio
from benchmarks.work import PREPARED, minilm, objectives, split, wrapper
from mtbert.corpus.tokenizer import read_tokenizer
from mtbert.engines import engine_for
from mtbert.inference.model import Label, TaskInfo, TrainedModel
from mtbert.model.multitask import MultitaskModel
from mtbert.settings.run import Model
from mtbert.training.compute import Compute, resolve

BATCHES = (16, 32, 64, 128)


def main(
    pairs: Annotated[int, typer.Option(help="number of pairs")] = 256, rounds: int = 5, precision: Precision = "auto"
) -> None:
    """Pairs per second with tokenisation, each at its best batch size on this machine."""
    compute = resolve("cpu", precision, "auto")  # as the peers; `benchmarks.gpu` measures the card
    table = split("quora").example_table()
    texts = list(zip(table["sentence1"][:pairs], table["sentence2"][:pairs], strict=True))
    model = minilm(["c"], pooling="cls")
    mine, head = ours(model, texts, compute), model.heads["quora"].linear.state_dict()  # type: ignore[union-attr]
    difference = float(np.abs(mine() - cross_encoder(texts, torch.float32, head)(32)).max())
    cases = {"mtbert": counted(mine)}
    for theirs in peers.precisions(compute):
        dtype = torch.bfloat16 if theirs == "bf16" else torch.float32
        for name, make in (("CrossEncoder.predict", cross_encoder), ("pipeline", pipeline)):
            predict = make(texts, dtype, head)
            found = {size: alternate({"": counted(partial(predict, size))}, 1)[""][0] for size in BATCHES}
            best = max(found, key=lambda size: found[size])
            cases[f"{name} {theirs} batch {best}"] = counted(partial(predict, best))
    rates = alternate(cases, rounds)
    targets = []
    for name in ("CrossEncoder.predict", "pipeline"):
        best_case = fastest(rates, (case for case in cases if case.startswith(name)))
        targets.append(Target(f"times {best_case}", ratio(rates, "mtbert", best_case), 3.0))
    publish(
        "prediction",
        "pairs/s",
        rates,
        ours="mtbert",
        targets=targets,
        precision=compute.describe()["precision"],
        largest_difference_of_probabilities=difference,
    )


def counted(predict: Callable[[], np.ndarray]) -> Callable[[], float]:
    """A case, whose work is the number of predictions."""
    return lambda: float(len(predict()))


def ours(model: MultitaskModel, texts: list[tuple[str, str]], compute: Compute) -> Callable[[], np.ndarray]:
    """`predict` of a loaded model: text to labels with probabilities."""
    settings = Model.model_construct(heads=objectives(["c"], ["c"]), declared={})
    info = TaskInfo("quora", "binary", 2, ("sentence1", "sentence2"), ("different", "duplicate"), None, None)
    tokenizer = read_tokenizer(PREPARED / "tokenizer.json", "", "")
    engine = engine_for(model.eval(), compute)
    loaded = TrainedModel(Path("models/quora"), engine, settings, {"quora": info}, tokenizer, wrapper(), "none")

    def predict() -> np.ndarray:
        found = loaded.predict("quora", texts)
        return np.array([one.probabilities["duplicate"] for one in found if isinstance(one, Label)])

    return predict


def cross_encoder(
    texts: list[tuple[str, str]], dtype: torch.dtype, head: dict[str, torch.Tensor]
) -> Callable[[int], np.ndarray]:
    """sentence-transformers' CrossEncoder over the same encoder, with one logit."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(peers.minilm_folder()), num_labels=1, device="cpu", max_length=256, model_kwargs={"dtype": dtype}
    )

    model.model.classifier.load_state_dict(head)

    def predict(batch_size: int) -> np.ndarray:
        return np.asarray(model.predict(texts, batch_size=batch_size, show_progress_bar=False), np.float64)

    return predict


def pipeline(
    texts: list[tuple[str, str]], dtype: torch.dtype, head: dict[str, torch.Tensor]
) -> Callable[[int], np.ndarray]:
    """transformers' text-classification pipeline, with inputs sorted by length, which saves padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline

    folder = peers.minilm_folder()
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
    model.classifier.load_state_dict(head)
    pipe = TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu")
    inputs = [{"text": one, "text_pair": two} for one, two in sorted(texts, key=lambda pair: len(pair[0] + pair[1]))]

    def predict(batch_size: int) -> np.ndarray:
        return np.array([one["score"] for one in pipe(inputs, batch_size=batch_size)])

    return predict


if __name__ == "__main__":
    typer.run(main)
