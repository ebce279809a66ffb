"""Fine-tune transformers on one task at a time: the dev scores that one model for three tasks competes with, on the same data and encoder."""

import tempfile
import time
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import peers
from benchmarks.harness import write
from benchmarks.work import PREPARED, objectives, split, wrapper
from mtbert.data.arrays import Split, load_split
from mtbert.data.tokens import Wrapper
from mtbert.evaluation.metrics import METRICS
from mtbert.evaluation.resampling import interval, resampled
from mtbert.tasks.paper import TASKS, overall_of
from mtbert.training.compute import resolve

RESAMPLES = 10_000
OBJECTIVES = objectives(["c"], ["c"])
OUTPUTS = {"sst": 5, "quora": 2, "sts": 1}  # with one output, transformers' loss is the mean squared error


def main(
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: Annotated[float, typer.Option(help="at the start; the Trainer lets it fall to zero")] = 5e-5,
    seed: int = 11711,
    steps: Annotated[int, typer.Option(help="at most, to try the benchmark")] = -1,
) -> None:
    """Scores of `BertForSequenceClassification` with the Trainer's defaults, pairs cross-encoded, a model for each task."""
    resolve("cpu", "fp32", "auto")
    recipe = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    tokens = wrapper()
    found: dict[str, dict[str, Any]] = {}
    table = Table("task", "score", "95% interval", "steps", "seconds")
    for task in TASKS.values():
        train, dev = split(task.name), load_split(PREPARED, task, "dev")
        assert dev.labels is not None
        began = time.perf_counter()
        model, taken = trained(train, tokens, epochs, batch_size, learning_rate, seed, steps)
        seconds = round(time.perf_counter() - began)
        metric = OBJECTIVES[task.name].metric
        labels, predictions = np.asarray(dev.labels, dtype=np.float64), predicted(model, dev, tokens)
        score = METRICS[metric](labels, predictions)
        ends = interval(resampled(metric, labels, predictions[None], RESAMPLES, np.random.default_rng(0))[:, 0])
        found[task.name] = {"metric": metric, "score": score, "interval": ends, "steps": taken, "seconds": seconds}
        # After each task, so that a stop loses one.
        overall = overall_of({name: one["score"] for name, one in found.items()})
        write("single-task", {"recipe": recipe, "tasks": found, "overall": overall})
        table.add_row(task.name, f"{score:.3f}", "{:.3f} to {:.3f}".format(*ends), f"{taken:,}", f"{seconds:,}")
    Console().print(table, f"overall, of three models: {overall:.3f}")


def trained(
    data: Split, tokens: Wrapper, epochs: int, batch_size: int, learning_rate: float, seed: int, steps: int
) -> tuple[nn.Module, int]:
    """A model fine-tuned by the Trainer on batches of similar length, and the number of its steps."""
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    model = BertForSequenceClassification.from_pretrained(peers.minilm_folder(), num_labels=OUTPUTS[data.task])
    assert data.labels is not None
    labels = torch.from_numpy(np.array(data.labels))  # a copy, since the file is read-only
    labels = labels.float() if OUTPUTS[data.task] == 1 else labels.long()

    class Examples(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"input_ids": peers.sequence(data, row, tokens)[0].tolist(), "row": row}

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.array([item["row"] for item in items])
        return {**peers.padded(data, rows, tokens)[0], "labels": labels[rows]}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=Examples(), data_collator=collate)
        trainer.train()
    return model, trainer.state.global_step


@torch.inference_mode()
def predicted(model: nn.Module, data: Split, tokens: Wrapper, batch_size: int = 64) -> np.ndarray:
    """The predicted class or score of each example, (B,) float64."""
    model.eval()
    found = []
    for start in range(0, len(data), batch_size):
        inputs, _ = peers.padded(data, np.arange(start, min(start + batch_size, len(data))), tokens)
        logits = model(**inputs).logits
        found.append(logits.squeeze(-1) if logits.shape[-1] == 1 else logits.argmax(-1))
    return torch.cat(found).double().numpy()


if __name__ == "__main__":
    typer.run(main)
