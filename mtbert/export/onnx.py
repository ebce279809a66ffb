"""`model.onnx` for each task, with any number and length of sequences, and the tokenizer.json that feeds it."""

import logging
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.export.card import write_card
from mtbert.export.registry import Export
from mtbert.export.tokenizer import exported_tokenizer
from mtbert.export.transformers import classifier, is_plain, limits, longest, remarks
from mtbert.inference.model import TrainedModel
from mtbert.pretrained.store import TOKENIZER

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write(export: Export, folder: Path) -> list[str]:
    """Write FOLDER/TASK for each task.

    Raises:
        MtbertError: a package is missing.
    """
    if missing := [name for name in ("onnx", "onnxscript", "transformers") if find_spec(name) is None]:
        raise MtbertError(f"--to onnx needs {', '.join(missing)}; install them: pip install 'mtbert[onnx]'")
    for task in export.tasks:
        (folder / task).mkdir()
        _write_graph(export.model, task, folder / task / "model.onnx")
        _write_tokenizer(export.model, task, folder / task / TOKENIZER)
        write_card(export, folder / task, "onnx", _use(export.model, task), [task])
    return [f"{task}: model.onnx" for task in export.tasks]


class _Logits(nn.Module):
    """A transformers model with its inputs by position and its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, token_type_ids=segments).logits
        return logits


def _write_graph(model: TrainedModel, task: str, path: Path) -> None:
    # Two sequences of two lengths, so that the tracer takes neither size for a constant.
    pair = model.tasks[task].sentences == 2
    encoded = exported_tokenizer(model, pair)
    encoded.enable_padding()
    batch = encoded.encode_batch([("a b c", "d e"), ("a", "b")] if pair else ["a b c", "a"])
    arguments = tuple(
        torch.tensor([getattr(one, name) for one in batch]) for name in ("ids", "attention_mask", "type_ids")
    )
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest(model, task))}
    # It warns that torchvision is missing, and that the inputs share their sizes.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(_built(model, task)).eval(),
            arguments,
            path,
            input_names=INPUTS,
            output_names=["logits"],
            dynamic_shapes=(sizes,) * len(INPUTS),
            external_data=False,
            verbose=False,
        )


def _built(model: TrainedModel, task: str) -> nn.Module:
    """The task in transformers' classes."""
    if is_plain(model, task):
        kind: Any = import_module("transformers").BertForSequenceClassification
    else:
        kind = import_module("mtbert.export.modeling_mtbert").MtbertForSequenceClassification
    config, tensors = classifier(model, task)
    built: nn.Module = kind(kind.config_class(**config, attn_implementation="eager"))
    built.load_state_dict(tensors)
    return built


def _write_tokenizer(model: TrainedModel, task: str, path: Path) -> None:
    """tokenizer.json, which itself pads a batch and cuts what is too long."""
    tokenizer = exported_tokenizer(model, model.tasks[task].sentences == 2)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]") or 0)
    tokenizer.enable_truncation(longest(model, task))
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def _use(model: TrainedModel, task: str) -> list[str]:
    info, ends = model.tasks[task], limits(model, task)
    example = '("A cat sleeps.", "A dog sleeps.")' if info.sentences == 2 else '"A cat sleeps."'
    return [
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "from tokenizers import Tokenizer",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        'tokenizer = Tokenizer.from_file("tokenizer.json")',
        *(
            ["tokenizer.encode_special_tokens = True  # a [SEP] in the text is text"]
            if model.preprocess == "course"
            else []
        ),
        f"batch = tokenizer.encode_batch([{example}])",
        'fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}',
        "inputs = {name: np.array([getattr(one, field) for one in batch]) for name, field in fields.items()}",
        '(logits,) = session.run(["logits"], inputs)',
        *(
            [
                f"labels = {list(info.labels)}",
                "probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)",
                "print(labels[logits[0].argmax()], probabilities[0])",
            ]
            if info.labels
            else [f"print(logits[:, 0]{f'.clip({ends})' if ends else ''})"]
        ),
        "```",
        *remarks(model, task, code=False),
    ]
