"""A folder for each task, which transformers' `AutoModelForSequenceClassification` and `AutoTokenizer` load.

A linear head over the pooled u of a sentence, or the pooled c of a pair, with cls pooling is exactly `BertForSequenceClassification`.
Others come with modeling_mtbert.py, which computes them, and need `trust_remote_code=True`.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mtbert.export.card import write_card
from mtbert.export.registry import Export
from mtbert.export.tokenizer import write_tokenizer
from mtbert.files import atomic_json, atomic_write_bytes
from mtbert.inference.model import TrainedModel
from mtbert.model.heads import HeadOverPairLayer
from mtbert.peft.mtlora import merged_state
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.store import CONFIG, WEIGHTS
from mtbert.pretrained.weights import to_hf
from mtbert.tasks.objective import Objective
from mtbert.tasks.ordinal import Corn

CODE = Path(__file__).with_name("modeling_mtbert.py")


def write(export: Export, folder: Path) -> list[str]:
    """Write FOLDER/TASK for each task."""
    for task in export.tasks:
        (folder / task).mkdir()
        write_classifier(export.model, task, folder / task)
        write_card(export, folder / task, "transformers", _use(export.model, task), [task])
    return [f"{task}: AutoModelForSequenceClassification{trust(export.model, task)}" for task in export.tasks]


def write_classifier(model: TrainedModel, task: str, folder: Path, one_logit: bool = False, **more: Any) -> None:
    """Write a task's config.json, weights, tokenizer and, where BERT's classes do not suffice, the code.

    Args:
        one_logit: as `classifier` takes it.
        more: further keys of config.json.
    """
    config, tensors = classifier(model, task, one_logit)
    write_tensors(folder / WEIGHTS, tensors)
    atomic_json(folder / CONFIG, {**config, **more})
    if not is_plain(model, task):
        shutil.copyfile(CODE, folder / CODE.name)
    write_tokenizer(model, model.tasks[task].sentences == 2, longest(model, task), folder)


def classifier(model: TrainedModel, task: str, one_logit: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the tensors of the encoder with a task's head.

    Args:
        one_logit: whether two labels have one logit, that of the second; otherwise they have two, of which the first is 0.
    """
    tensors = {
        f"{BERT.prefix}{name}": tensor for name, tensor in to_hf(merged_state(model.network.encoder, task)).items()
    }
    two_logits = model.tasks[task].kind == "binary" and not one_logit
    for name, tensor in model.network.heads[task].state_dict().items():  # of a cosine head none
        whole = torch.cat([torch.zeros_like(tensor), tensor]) if two_logits else tensor
        tensors[name.replace("linear", "classifier")] = whole
    if pair_size(model, task):
        assert model.network.pair_layer is not None
        for name, tensor in model.network.pair_layer.state_dict().items():
            tensors[name.replace("linear", "pair_layer")] = tensor
    return _config(model, task, one_logit), tensors


def longest(model: TrainedModel, task: str) -> int:
    """The tokens at which a tokenizer may cut the task's input without loss.

    u and v may each be as long as the model takes, so modeling_mtbert.py cuts a pair itself.
    """
    pair = model.tasks[task].sentences == 2
    return model.max_tokens if is_plain(model, task) or not pair else 2 * model.max_tokens - 1


def is_plain(model: TrainedModel, task: str) -> bool:
    """Whether the task's head and pooling are those of `BertForSequenceClassification`."""
    objective = model.settings.heads[task]
    whole = ["u"] if model.tasks[task].sentences == 1 else ["c"]
    one_layer = _head(objective) == "linear" and not pair_size(model, task)
    return model.settings.pooling == "cls" and one_layer and list(objective.inputs) == whole


def pair_size(model: TrainedModel, task: str) -> int:
    """The size of the pair layer below the task's head; 0 if there is none."""
    head, pair_layer = model.network.heads[task], model.settings.pair_layer
    return pair_layer.size if pair_layer is not None and isinstance(head, HeadOverPairLayer) else 0


def _head(objective: Objective) -> str:
    return "corn" if isinstance(objective, Corn) else objective.head


def encoder_config(model: TrainedModel) -> dict[str, Any]:
    """The encoder's part of config.json."""
    settings = model.settings
    return {
        **BERT.written_config(model.network.encoder.config),
        "hidden_dropout_prob": settings.encoder_dropout,
        "attention_probs_dropout_prob": settings.encoder_dropout,
        "dtype": "float32",
    }


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors that transformers reads."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(contiguous, metadata={"format": "pt"}))


def _config(model: TrainedModel, task: str, one_logit: bool) -> dict[str, Any]:
    settings, info, objective = model.settings, model.tasks[task], model.settings.heads[task]
    binary = one_logit and info.kind == "binary"
    labels = [info.labels[-1]] if binary else list(info.labels) or ["score"]
    config = {
        **encoder_config(model),
        "architectures": ["BertForSequenceClassification"],
        "classifier_dropout": settings.head_dropout,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": None if binary else "single_label_classification" if info.labels else "regression",
    }
    if is_plain(model, task):
        return config
    return config | {
        # Not bert: without trust_remote_code, transformers would then load its own class, which computes something else.
        "model_type": "mtbert",
        "architectures": ["MtbertForSequenceClassification"],
        "auto_map": {
            "AutoConfig": f"{CODE.stem}.MtbertConfig",
            "AutoModelForSequenceClassification": f"{CODE.stem}.MtbertForSequenceClassification",
        },
        "pooling": settings.pooling,
        "features": list(objective.inputs),
        "head": _head(objective),
        "pair_layer": pair_size(model, task),
        "max_tokens": model.max_tokens,
        **({} if info.labels else {"low": info.low, "high": info.high}),
    }


def trust(model: TrainedModel, task: str) -> str:
    """The argument that the export of a task takes to load, after a comma; empty if it takes none."""
    return "" if is_plain(model, task) else ", trust_remote_code=True"


def limits(model: TrainedModel, task: str) -> str:
    """The range to which mtbert limits a task's scores, as the arguments of a `clamp` or `clip`; empty if it does not."""
    info = model.tasks[task]
    return f"{info.low:g}, {info.high:g}" if getattr(model.settings.heads[task], "clamp", False) else ""


def remarks(model: TrainedModel, task: str, code: bool = True) -> list[str]:
    """What a user of an exported task has to know, as paragraphs of Markdown.

    Args:
        code: whether the code that a task may need is in its folder.
    """
    found = []
    if ends := limits(model, task):
        found.append(
            f"The model does not limit the score to {ends.replace(', ', ' to ')}; mtbert does, and so do the lines above."
        )
    if code and not is_plain(model, task):
        found.append(f"`{CODE.name}` computes pooling, features and head. Read it, it is short, before you let it run.")
    if is_plain(model, task) and model.tasks[task].sentences == 2 and model.max_tokens % 2 == 0:
        found.append(
            f"Of a pair with more than {model.max_tokens} tokens, the tokenizer may cut one token more of the first sentence and one "
            "less of the second than mtbert does; shorter pairs are read alike."
        )
    return [line for paragraph in found for line in ("", paragraph)]


def _use(model: TrainedModel, task: str) -> list[str]:
    info, ends = model.tasks[task], limits(model, task)
    texts = '["A cat sleeps."]' + ', ["A dog sleeps."]' * (info.sentences - 1)
    score = "logits.squeeze(-1)" + (f".clamp({ends})" if ends else "")
    return [
        "```python",
        "import torch",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'folder = "."  # this folder',
        f"tokenizer = AutoTokenizer.from_pretrained(folder{trust(model, task)})",
        f"model = AutoModelForSequenceClassification.from_pretrained(folder{trust(model, task)})",
        f'inputs = tokenizer({texts}, padding=True, truncation=True, return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**inputs).logits",
        *(
            [
                "probabilities = logits.softmax(-1)",
                "print(model.config.id2label[int(logits[0].argmax())], probabilities[0])",
            ]
            if info.labels
            else [f"print({score})"]
        ),
        "```",
        *remarks(model, task),
    ]
