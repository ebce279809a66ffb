"""Tiny models with random weights to export, of every kind of head and pooling, and texts that are easily read differently."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtbert
from mtbert.export.transformers import write_tensors
from mtbert.files import atomic_json, sha256_file
from mtbert.model.bert import BertConfig
from mtbert.peft.convert import kept_state
from mtbert.pipeline.card import CARD, card
from mtbert.pipeline.models import adapt, build
from mtbert.pipeline.saving import described
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import MINILM_PACKAGE, _minilm, pretrained
from mtbert.pretrained.store import CONFIG, TOKENIZER, WEIGHTS, read_config, save_model
from mtbert.pretrained.weights import for_pooling, to_hf
from mtbert.settings.run import Run

SIZE = BertConfig(vocabulary=30522, positions=64, layers=2, hidden=32, heads=2, intermediate=48)
LONG = "a very long review of a film that never ends , " * 60  # 600 words
SENTENCES = [
    "A touching film.",
    "It's 'quoted', \"twice\" - and IT SHOUTS!",
    "😀 naïve café, ΟΔΟΣ İstanbul ﬁ",
    "...",
    "?",
    "[SEP] is text, [CLS] too",
    "tabs\tand\nlines\u2028and\xa0spaces \x1c here",
    "你好，世界",
    LONG,
]
PAIRS = [*pairwise(SENTENCES), (LONG, LONG), (LONG, "short"), ("short", LONG), ("a", "a")]
CROSS = {"sst": ["u"], "quora": ["c"], "sts": ["c"]}
# Settings of adapters: those that every one has, with nothing else of the encoder trained, and those of each method.
SHARED: dict[str, Any] = {"learning_rate": 1e-3, "train_rest": False, "start_from": "pretrained"}
LORA = {**SHARED, "method": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}
DORA = {**LORA, "method": "dora", "norm_gradient": "exact", "train_rest": True}
RSLORA, PISSA = {**LORA, "method": "rslora"}, {**SHARED, "method": "pissa", "rank": 4}
SAME = {"sst": ["u"], "quora": ["u", "|u-v|", "c"], "sts": ["u", "|u-v|", "c"]}
LINEAR = {"sst": ["u"], "quora": ["u", "v", "|u-v|", "c"], "sts": ["|u+v|", "c"]}


def run(
    pooling: str,
    features: dict[str, list[str]] | None,
    adapter: dict[str, Any] | None,
    corn: bool = False,
    pair_size: int | None = None,
) -> Run:
    """A run with linear heads over these features, or cosine heads for pairs; with CORN for classes, and with a pair layer."""
    linear = features or {"sst": ["u"]}
    heads: dict[str, Any] = {"sst": {"objective": "corn" if corn else "cross_entropy", "features": linear["sst"]}}
    if features:
        heads["quora"] = {"objective": "bce", "features": features["quora"]}
        heads["sts"] = {"objective": "mse", "features": features["sts"], "clamp": False}
    else:
        heads["quora"] = {"objective": "cosine"}
        heads["sts"] = {"objective": "cosine_embedding", "margin": 0.0, "threshold": 2.5}
    views = {"cross" if name == "c" else "bi" for task in ("quora", "sts") for name in linear.get(task, "u")}
    return Run.model_validate(
        {
            **{"pooling": pooling, "heads": heads, "encoding": views.pop() if len(views) == 1 else "both"},
            **{"encoder_dropout": 0.1, "head_dropout": 0.3, "seed": 1, "tasks": ["sst"], "sampler": "sequential"},
            **{"epoch_end": 1, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "adapter": adapter},
            **({"pair_layer": {"size": pair_size}} if pair_size else {}),
        }
    )


def expected(model: mtbert.TrainedModel, task: str, rows: Sequence[Any]) -> np.ndarray:
    """What mtbert predicts: probabilities of all labels, or scores, (B, labels)."""
    found = model.predict(task, rows)
    return np.array(
        [list(one.probabilities.values()) if isinstance(one, mtbert.Label) else [one.score] for one in found]
    )


def random_model(settings: Run, config: BertConfig = SIZE) -> Any:
    """A model whose outputs depend on every weight and every word."""
    model = build(settings, config)
    for number, (name, parameter) in enumerate(model.named_parameters()):
        generator = torch.Generator().manual_seed(number)
        around = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.data = around + 0.15 * torch.randn(parameter.shape, generator=generator)
    return model


def write_base(folder: Path, spoil_what_trained: bool = False) -> None:
    """The encoder from which the adapters start, as transformers saves it.

    Args:
        spoil_what_trained: replace what `train_rest` trains, so that it has to come from the adapter.
    """
    tensors = random_model(run("cls", CROSS, None)).encoder.state_dict()
    for name in tensors if spoil_what_trained else ():
        if tensors[name].ndim == 1 or name.startswith("embeddings."):
            tensors[name] = torch.zeros_like(tensors[name])
    folder.mkdir(parents=True)
    write_tensors(folder / WEIGHTS, to_hf(tensors))
    atomic_json(folder / CONFIG, BERT.written_config(SIZE))
    shutil.copyfile(_minilm() / TOKENIZER, folder / TOKENIZER)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a trained model and returns its folder.

    `features` None: cosine heads; `minilm`: the weights and size of MiniLM-L6; `more`: as of `run`.
    """
    pytest.importorskip(MINILM_PACKAGE)

    def make(
        pooling: str,
        features: dict[str, list[str]] | None,
        adapter: dict[str, Any] | None = None,
        preprocess: str = "course",
        max_tokens: int = 24,
        base: dict[str, Any] | None = None,
        minilm: bool = False,
        **more: Any,
    ) -> Path:
        settings = run(pooling, features, adapter, **more)
        size = SIZE
        if minilm:
            encoder = pretrained("minilm")
            size, model = encoder.config, random_model(settings, encoder.config)
            model.encoder.load_state_dict(for_pooling(encoder.tensors, pooling, ""))
        else:
            model = random_model(settings)
        folder = tmp_path_factory.mktemp("project") / "models/run"
        folder.mkdir(parents=True)
        base_weights = None
        if adapter:
            (folder.parent / "pretrained").mkdir()
            save_model(folder.parent / "pretrained", model.encoder.state_dict(), {"encoder": asdict(size)})
            base_weights = read_config(folder.parent / "pretrained")["sha256"]
            adapt(model, settings, "run", initialise=True)
            for name, parameter in model.named_parameters():
                if name in (model.adapter_rates or {}) and parameter.requires_grad:
                    parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        shutil.copyfile(_minilm() / TOKENIZER, folder / TOKENIZER)
        config = {
            "encoder": asdict(size),
            "settings": settings.model_dump(),
            "base": base or {"name": "tiny-bert"},
            "base_weights": base_weights,
            "tasks": {task.name: described(task) for task in settings.known.values()},
            "max_tokens": max_tokens,
            "preprocess": preprocess,
            "tokenizer": sha256_file(folder / TOKENIZER),
            "parameters": {"total": 1, "trainable": 1, "adapters_only": None},
            "training": {
                **{"data": "download", "sizes": {"sst": 8}},
                **{"steps": 1, "batch_size": 8, "epochs": 1, "sampler": "sequential"},
            },
        }
        save_model(folder, kept_state(model) if adapter else model.state_dict(), config)
        (folder / CARD).write_text(card("run", config), encoding="utf-8")
        return folder

    return make
