"""Trained models to export, of every kind of head and pooling; tiny, random, and each with a word for every difference."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mtbert.files import sha256_file
from mtbert.model.bert import BertConfig
from mtbert.pipeline.card import CARD, card
from mtbert.pipeline.models import _described, adapt, build
from mtbert.pretrained.source import MINILM_PACKAGE, _minilm
from mtbert.pretrained.store import TOKENIZER, save_model
from mtbert.pretrained.weights import config_to_json
from mtbert.settings import Run

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
LINEAR = {"sst": ["u"], "quora": ["u", "v", "|u-v|", "c"], "sts": ["|u+v|", "c"]}


def run(pooling: str, features: dict[str, list[str]] | None, adapter: dict[str, Any] | None) -> Run:
    """A run with linear heads over these features, or cosine heads for pairs."""
    linear = features or {"sst": ["u"]}
    heads: dict[str, Any] = {"sst": {"objective": "cross_entropy", "features": linear["sst"]}}
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
        }
    )


def random_model(settings: Run, config: BertConfig = SIZE) -> Any:
    """A model whose outputs depend on every weight and every word."""
    model = build(settings, config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        scale = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.data = scale + 0.15 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """made(pooling, features, adapter=..., preprocess=..., base=...): the folder of a trained model; features None: cosine heads."""
    pytest.importorskip(MINILM_PACKAGE)

    def make(
        pooling: str,
        features: dict[str, list[str]] | None,
        adapter: dict[str, Any] | None = None,
        preprocess: str = "course",
        max_tokens: int = 24,
        base: dict[str, Any] | None = None,
    ) -> Path:
        settings = run(pooling, features, adapter)
        model = random_model(settings)
        if adapter:
            adapt(model, settings, "run")
            for name, parameter in model.named_parameters():
                if "lora_" in name or "magnitude" in name:
                    parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("project") / "models/run"
        folder.mkdir(parents=True)
        shutil.copyfile(_minilm() / TOKENIZER, folder / TOKENIZER)
        config = {
            "encoder": config_to_json(SIZE),
            "settings": settings.model_dump(),
            "base": base or {"name": "tiny"},
            "tasks": {task.name: _described(task) for task in settings.known.values()},
            "max_tokens": max_tokens,
            "preprocess": preprocess,
            "tokenizer": sha256_file(folder / TOKENIZER),
            "parameters": {"total": 1, "trainable": 1, "adapters_only": None},
            "training": {"steps": 1, "batch_size": 8, "epochs": 1, "sampler": "sequential", "sizes": {"sst": 8}},
        }
        save_model(folder, model.state_dict(), config)
        (folder / CARD).write_text(card("run", config), encoding="utf-8")
        return folder

    return make
