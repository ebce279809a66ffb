"""`mtbert export`: what it refuses, that it leaves nothing half-written, and the card."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mtbert
from mtbert.cli import app
from mtbert.errors import MtbertError
from mtbert.export import registry
from mtbert.export.command import main
from mtbert.files import sha256_file
from mtbert.pipeline.card import CARD
from tests.export.conftest import CROSS, LINEAR, SENTENCES, expected


def test_what_is_refused(made: Callable[..., Path], tmp_path: Path) -> None:
    folder = made("mean", LINEAR)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    for destination, to, task, message in [
        ("out", "transformer", None, "--to: 'transformer' is unknown; did you mean 'transformers'"),
        ("out", "transformers", "stt", r"has no task 'stt'; did you mean 'sts'"),
        ("used", "transformers", None, "used: exists already; name another folder, or remove it first"),
        ("used/file", "transformers", None, "file: exists already"),
    ]:
        with pytest.raises(MtbertError, match=message):
            main(str(folder), tmp_path / destination, to, task)
    with pytest.raises(MtbertError, match="nowhere: not a model"):
        main(str(tmp_path / "nowhere"), tmp_path / "out", "transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_failure_leaves_nothing(made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(export: registry.Export, folder: Path) -> list[str]:
        (folder / "config.json").write_text("{", encoding="utf-8")
        raise OSError(28, "No space left on device")

    folder = made("mean", LINEAR)
    monkeypatch.setattr("mtbert.export.transformers.write", broken)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(OSError, match="No space"):
            main(str(folder), tmp_path / name, "transformers")
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_the_card(made: Callable[..., Path], tmp_path: Path) -> None:
    folder = made("mean", LINEAR)
    results = folder.parent.parent / "results/run"
    results.mkdir(parents=True)
    metrics = {"sts": {"pearson": 0.5, "n": 9, "interval": {"low": 0.25, "high": 0.75}}, "overall": 0.625}
    (results / "metrics.json").write_text(json.dumps({"run": "run", "dev": metrics, "test": {}}), encoding="utf-8")
    for weights, shown in ((mtbert_sha256(folder), True), ("0" * 64, False)):
        evaluation = {"parents": [{"folder": "models/run", "sha256": weights}]}
        (results / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
        done = CliRunner().invoke(
            app, ["export", str(folder), str(tmp_path / weights), "--to", "transformers", "--task", "sts"]
        )
        assert done.exit_code == 0, done.output
        assert "sts: AutoModelForSequenceClassification, trust_remote_code=True" in done.output
        card = (tmp_path / weights / "sts" / CARD).read_text(encoding="utf-8")
        assert ("| dev | sts | interval | low 0.250, high 0.750 |" in card) == shown
        assert "overall" not in card, "it is of all tasks"
        for part in (
            'library_name: "transformers"',
            "## Use",
            "Stanford Sentiment",
            mtbert_sha256(folder),
            "modeling_mtbert.py",
        ):
            assert part in card
        assert "| quora |" not in card


def mtbert_sha256(folder: Path) -> str:
    return sha256_file(folder / "model.safetensors")


LOADER = """
import json, sys
assert not any("mtbert" in path for path in sys.path), sys.path
sys.modules["mtbert"] = None  # an import of it fails
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
print(json.dumps(model(**tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")).logits.tolist()))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mtbert.LongInputWarning")
def test_minilm_loads_where_there_is_no_mtbert(made: Callable[..., Path], tmp_path: Path) -> None:
    """The whole way with the size and the vocabulary of a real encoder, in a process that cannot import mtbert."""
    folder = made("mean", CROSS, minilm=True, max_tokens=256)
    main(str(folder), tmp_path / "out", "transformers")
    model = mtbert.load(folder, device="cpu", precision="fp32")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for task in ("sst", "sts"):
        texts = [SENTENCES] if task == "sst" else [SENTENCES, SENTENCES[::-1]]
        command = [sys.executable, "-P", "-c", LOADER, str(tmp_path / "out" / task), json.dumps(texts)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        logits = np.array(json.loads(done.stdout.splitlines()[-1]))
        rows = SENTENCES if task == "sst" else list(zip(*texts, strict=True))
        values = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) if task == "sst" else logits
        np.testing.assert_allclose(values, expected(model, task, rows), atol=1e-5)
