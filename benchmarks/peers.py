"""The peers, each used as its documentation recommends, on the same wordpieces as mtbert."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Timed
from benchmarks.work import batches, wait
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import folder_of
from mtbert.training.compute import Compute

WARM_STEPS = 3  # of the Trainer, in each round: it starts anew every time
GROUP = 50  # batches that are sorted together by length, as in transformers' length grouping


def precisions(compute: Compute) -> list[str]:
    """What peers are timed in: fp32, and bf16 if mtbert uses it."""
    return ["fp32", "bf16"] if compute.bf16 else ["fp32"]


def minilm_folder() -> Path:
    """The folder of MiniLM-L6, in the format of transformers and sentence-transformers."""
    return folder_of("minilm", None)


class Classifier(nn.Module):
    """transformers' BertModel, mean pooling over real tokens or BERT's pooler of [CLS], and a linear head."""

    def __init__(self, encoder: nn.Module, outputs: int, pooling: str = "mean") -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(encoder.config.hidden_size, outputs)  # type: ignore[union-attr, arg-type]

    def forward(self, **inputs: Tensor) -> Tensor:
        if self.pooling == "cls":
            return self.linear(self.dropout(self.encoder(**inputs).pooler_output))
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1)))


def bert(attention: str, pooler: bool = False) -> nn.Module:
    """MiniLM-L6 in transformers; attention is sdpa or eager."""
    from transformers import BertModel

    return BertModel.from_pretrained(minilm_folder(), attn_implementation=attention, add_pooling_layer=pooler)


def random_bert(config: BertConfig) -> nn.Module:
    """An untrained BertModel of this size, with sdpa attention."""
    from transformers import BertConfig as Theirs
    from transformers import BertModel

    theirs = Theirs(**BERT.written_config(config))
    theirs._attn_implementation = "sdpa"
    return BertModel(theirs, add_pooling_layer=False)


def adapted(encoder: nn.Module, rank: int, dora: bool) -> nn.Module:
    """The encoder with peft's LoRA or DoRA on every linear layer."""
    from peft import LoraConfig, get_peft_model

    names = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
    wrapped = get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=rank, use_dora=dora, target_modules=names))
    wrapped.config = encoder.config
    return wrapped


def padded(data: Split, rows: np.ndarray, tokens: Wrapper) -> tuple[dict[str, Tensor], int]:
    """Rows as a batch padded to its longest sequence, pairs cross-encoded; and the number of real tokens."""
    sequences = [sequence(data, row, tokens) for row in rows]
    longest = max(len(ids) for ids, _ in sequences)
    ids = np.zeros((len(rows), longest), np.int64)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    for n, (one, second) in enumerate(sequences):
        ids[n, : len(one)], mask[n, : len(one)], segments[n, second : len(one)] = one, 1, 1
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, int(mask.sum())


def sequence(data: Split, row: int, tokens: Wrapper) -> tuple[np.ndarray, int]:
    """A row's sequence: its sentence, or its pair cross-encoded."""
    first = data.ids1[data.offsets1[row] : data.offsets1[row + 1]]
    if data.ids2 is None or data.offsets2 is None:
        return tokens.single(first)
    return tokens.pair(first, data.ids2[data.offsets2[row] : data.offsets2[row + 1]])


def length_grouped(data: Split, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of similar length: rows are shuffled, sorted within groups of 50 batches, and the batches shuffled again."""
    lengths = np.diff(data.offsets1) + (0 if data.offsets2 is None else np.diff(data.offsets2))
    groups, rng = batches(len(data), min(GROUP * batch_size, len(data)), 0), np.random.default_rng(1)
    for group in groups:
        ordered = group[np.argsort(lengths[group], kind="stable")]
        starts = np.arange(0, len(ordered) - batch_size + 1, batch_size)
        for start in rng.permutation(starts):
            yield ordered[start : start + batch_size]


def training(
    model: nn.Module,
    data: Split,
    tokens: Wrapper,
    *,
    batch_size: int,
    steps: int,
    bf16: bool,
    grouped: bool,
    device: str = "cpu",
) -> Callable[[], float]:
    """A case: a plain loop, AdamW fused, dynamic padding; returns the real tokens."""
    model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, fused=True)
    chosen = length_grouped(data, batch_size) if grouped else batches(len(data), batch_size, 0)

    def case() -> float:
        done = 0
        for rows in itertools.islice(chosen, steps):
            inputs, real = padded(data, rows, tokens)
            assert data.labels is not None
            labels = torch.from_numpy(np.asarray(data.labels[rows])).to(device)
            with torch.autocast(device, dtype=torch.bfloat16) if bf16 else nullcontext():
                scores = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
                loss = _loss(data.task, scores.float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += real
        wait(torch.device(device))
        return float(done)

    return case


def trainer(
    model: nn.Module, data: Split, tokens: Wrapper, *, batch_size: int, steps: int, bf16: bool, device: str = "cpu"
) -> Callable[[], Timed]:
    """A case: transformers' Trainer with length grouping. Its preparation and its first WARM_STEPS steps are not timed."""
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Examples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return min(len(data), 4 * last * batch_size)  # it reads all lengths before the first step

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"input_ids": sequence(data, row, tokens)[0].tolist(), "row": row}

    real, began, seconds, last = 0, 0.0, 0.0, WARM_STEPS + steps

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.array([item["row"] for item in items])
        inputs, count = padded(data, rows, tokens)
        assert data.labels is not None
        return {**inputs, "labels": torch.from_numpy(np.asarray(data.labels[rows])), "tokens": count}

    class Ours(Trainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:  # type: ignore[override]
            nonlocal real
            real += inputs.pop("tokens")  # counted here, since batches are collated ahead
            labels = inputs.pop("labels")
            return _loss(data.task, model(**inputs).float(), labels)

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal began, real
            if state.global_step == WARM_STEPS:
                wait(torch.device(device))
                began, real = time.perf_counter(), 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal seconds
            if state.global_step == last:
                wait(torch.device(device))
                seconds = time.perf_counter() - began

    def case() -> Timed:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=batch_size,
                max_steps=last,
                learning_rate=1e-5,
                lr_scheduler_type="constant",
                optim="adamw_torch_fused",
                bf16=bf16,
                train_sampling_strategy="group_by_length",
                max_grad_norm=0.0,  # no other case clips
                logging_nan_inf_filter=False,  # it would wait for the device in every step
                remove_unused_columns=False,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=device == "cpu",
                logging_strategy="no",
            )
            # The other cases run on one GPU; with several the Trainer would split each batch among them. Asking for the device
            # first counts the GPUs.
            _ = arguments.device
            arguments._n_gpu = min(1, arguments.n_gpu)
            Ours(model, arguments, train_dataset=Examples(), data_collator=collate, callbacks=[Clock()]).train()
        return Timed(float(real), seconds)

    return case


def _loss(task: str, scores: Tensor, labels: Tensor) -> Tensor:
    if task == "sst":
        return F.cross_entropy(scores, labels.long())
    if task == "quora":
        return F.binary_cross_entropy_with_logits(scores.squeeze(-1), labels)
    return F.mse_loss(scores.squeeze(-1), labels)
