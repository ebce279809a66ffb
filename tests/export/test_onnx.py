"""onnxruntime computes what mtbert does, for any number and length of sequences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import mtbert
from mtbert.errors import MtbertError
from mtbert.export import onnx
from mtbert.export.command import main
from tests.export.conftest import CROSS, LINEAR, LONG, PAIRS, SENTENCES, expected

pytestmark = pytest.mark.filterwarnings(
    "ignore::mtbert.LongInputWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
# One graph takes some ten seconds to trace.
CASES = [
    ("mean", LINEAR, "quora", {}),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [
            ("cls", CROSS, "sts", {}),
            ("cls", CROSS, "sst", {}),
            ("max", None, "sts", {}),
            ("cls", CROSS, "sst", {"corn": True}),
            ("cls", CROSS, "quora", {"pair_size": 6}),
        ]
    ),
]


@pytest.mark.parametrize(("pooling", "features", "task", "more"), CASES)
def test_the_outputs_are_mtbert_s(
    made: Callable[..., Path], tmp_path: Path, pooling: str, features: Any, task: str, more: dict[str, Any]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = made(pooling, features, **more)
    main(str(folder), tmp_path / "out", "onnx", task)
    model = mtbert.load(folder, device="cpu", precision="fp32")
    info = model.tasks[task]
    session = runtime.InferenceSession(tmp_path / "out" / task / "model.onnx")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / task / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = SENTENCES if info.sentences == 1 else [pair for pair in PAIRS if pooling != "cls" or pair != (LONG, LONG)]
    for some in (rows, rows[3:4]):
        batch = tokenizer.encode_batch(some)
        fields = zip(onnx.INPUTS, ("ids", "attention_mask", "type_ids"), strict=True)
        inputs = {name: np.array([getattr(one, field) for one in batch]) for name, field in fields}
        (logits,) = session.run(["logits"], inputs)
        values = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) if info.labels else logits
        np.testing.assert_allclose(values, expected(model, task, some), atol=1e-5)


def test_a_missing_package_is_named(made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else "")
    with pytest.raises(MtbertError, match=r"--to onnx needs onnxscript; install them: pip install 'mtbert\[onnx\]'"):
        main(str(made("mean", LINEAR)), tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
