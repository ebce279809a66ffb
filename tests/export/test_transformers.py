"""transformers computes what mtbert does, for every pooling and kind of head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import mtbert
from mtbert.export import modeling_mtbert
from mtbert.export.command import main
from mtbert.model.pooling import POOLINGS
from mtbert.tasks.features import FEATURES
from tests.export.conftest import CROSS, DORA, LINEAR, LONG, LORA, PAIRS, SAME, SENTENCES, expected

pytestmark = pytest.mark.filterwarnings("ignore::mtbert.LongInputWarning")


def rows_of(info: mtbert.TaskInfo, plain: bool) -> list[Any]:
    """Without custom code, a pair of two long sentences is cut otherwise."""
    if info.sentences == 1:
        return SENTENCES
    return [pair for pair in PAIRS if not (plain and pair == (LONG, LONG))]


def outputs(folder: Path, rows: list[Any], **options: Any) -> torch.Tensor:
    """The logits of a batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **options).eval()
    texts = [rows] if isinstance(rows[0], str) else map(list, zip(*rows, strict=True))
    with torch.no_grad():
        return model(**tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")).logits


def check(exported: Path, model: mtbert.TrainedModel, task: str, plain: bool) -> None:
    """Compare a task's outputs with mtbert's."""
    info = model.tasks[task]
    rows = rows_of(info, plain)
    logits = outputs(exported / task, rows, **({} if plain else {"trust_remote_code": True}))
    values = logits.softmax(-1) if info.labels else logits
    np.testing.assert_allclose(values, expected(model, task, rows), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "features", "preprocess"),
    [
        ("cls", CROSS, "course"),
        ("cls", CROSS, "none"),
        ("cls", LINEAR, "course"),
        ("mean", LINEAR, "course"),
        ("mean", LINEAR, "none"),
        ("max", LINEAR, "course"),
        ("mean", None, "course"),
    ],
)
def test_the_outputs_are_mtbert_s(
    made: Callable[..., Path], tmp_path: Path, pooling: str, features: Any, preprocess: str
) -> None:
    folder = made(pooling, features, preprocess=preprocess)
    main(str(folder), tmp_path / "out", "transformers")
    model = mtbert.load(folder, device="cpu", precision="fp32")
    for task in model.tasks:
        plain = pooling == "cls" and (task == "sst" or features == CROSS)
        assert (tmp_path / "out" / task / "modeling_mtbert.py").exists() != plain
        check(tmp_path / "out", model, task, plain)


def test_parts_of_a_task_are_merged_into_its_folder(made: Callable[..., Path], tmp_path: Path) -> None:
    folder = made("cls", CROSS, {**LORA, "method": "mtlora", "task_rank": 2})
    main(str(folder), tmp_path / "out", "transformers")
    model = mtbert.load(folder, device="cpu", precision="fp32")
    for task in model.tasks:
        check(tmp_path / "out", model, task, plain=True)


def test_the_custom_code_has_every_feature_and_pooling() -> None:
    """It cannot import mtbert's, so whoever adds one adds it there too."""
    assert list(modeling_mtbert.FEATURES) == list(FEATURES)
    assert set(POOLINGS) == {"cls", "mean", "max"}, "add it to MtbertForSequenceClassification._pooled, then here"


def test_labels_come_by_name(made: Callable[..., Path], tmp_path: Path) -> None:
    folder = made("cls", CROSS)
    main(str(folder), tmp_path / "out", "transformers")
    model = mtbert.load(folder, device="cpu", precision="fp32")
    classify = pipeline("text-classification", str(tmp_path / "out/sst"), device="cpu")
    assert [found["label"] for found in classify(SENTENCES, truncation=True)] == [
        found.label for found in model.predict("sst", SENTENCES)
    ]
    (score,) = pipeline("text-classification", str(tmp_path / "out/sts"), device="cpu")(
        [{"text": "a b", "text_pair": "c"}]
    )
    assert score["score"] == pytest.approx(model.predict("sts", [("a b", "c")])[0].score, abs=1e-5)


def test_the_custom_code_does_not_run_unasked(made: Callable[..., Path], tmp_path: Path) -> None:
    main(str(made("mean", LINEAR)), tmp_path / "out", "transformers", "sst")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sst"]
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "out/sst", trust_remote_code=False)


def test_an_adapter_is_merged(made: Callable[..., Path], tmp_path: Path) -> None:
    folder = made("mean", LINEAR, adapter=DORA)
    main(str(folder), tmp_path / "out", "transformers", "sts")
    check(tmp_path / "out", mtbert.load(folder, device="cpu", precision="fp32"), "sts", plain=False)


@pytest.mark.parametrize(("pooling", "features"), [("cls", CROSS), ("mean", SAME)])
def test_corn_and_a_pair_layer(made: Callable[..., Path], tmp_path: Path, pooling: str, features: Any) -> None:
    folder = made(pooling, features, corn=True, pair_size=6)
    main(str(folder), tmp_path / "out", "transformers")
    model = mtbert.load(folder, device="cpu", precision="fp32")
    for task in model.tasks:
        check(tmp_path / "out", model, task, plain=False)
