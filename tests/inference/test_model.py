"""A model's folder is enough to predict, as evaluate did; in Python."""

import csv
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtbert
from mtbert import engines
from mtbert.errors import MtbertError
from mtbert.files import sha256_file
from mtbert.inference import model as inference
from mtbert.pretrained.store import load_model, save_model
from mtbert.tasks.paper import STS
from stages import convert, evaluate, train
from tests.inference.conftest import make_vivid

ROOT = Path(__file__).parent.parent.parent


def examples(project: Path, run: str, task: str) -> tuple[list[tuple[str, ...]], list[dict[str, str]]]:
    with (project / f"results/{run}/examples/{task}-dev.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("sentence1", "sentence2") if name in rows[0]]
    return [tuple(row[name] for name in names) for row in rows], rows


@pytest.mark.parametrize("run", ["baseline", "dora_r4"])
def test_predictions_are_those_of_evaluate(project: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if run != "baseline":
        convert.main(run)
        train.main(run)
    make_vivid(project / "models" / run)
    monkeypatch.setattr(evaluate, "check_trained", lambda *_: None)  # these are not the weights that were trained
    evaluate.main(run)
    model = mtbert.load(run, device="cpu", precision="fp32")
    for task, about in model.tasks.items():
        pairs, rows = examples(project, run, task)
        texts = [one if about.sentences == 2 else one[0] for one in pairs]
        found = model.predict(task, texts)
        assert len({row["score"] for row in rows}) > 6, "predictions tell the examples apart"
        for row, prediction in zip(rows, found, strict=True):
            if isinstance(prediction, mtbert.Score):
                assert f"{prediction.score:.9g}" == row["prediction"]
                assert (prediction.low, prediction.high) == (0, 5)
            else:
                number = list(prediction.probabilities).index(prediction.label)
                assert number == int(row["prediction"])
                assert sum(prediction.probabilities.values()) == pytest.approx(1)
                chosen = 1 if about.kind == "binary" else number
                assert f"{list(prediction.probabilities.values())[chosen]:.6f}" == row["score"]


def test_the_tasks_have_labels_by_name(model: mtbert.TrainedModel) -> None:
    assert list(model.tasks) == ["sst", "quora", "sts"]
    assert model.tasks["sst"].labels == ("negative", "somewhat negative", "neutral", "somewhat positive", "positive")
    assert model.tasks["quora"].labels == ("different", "duplicate")
    assert model.tasks["sts"] == mtbert.TaskInfo("sts", "score", 2, ("sentence1", "sentence2"), (), 0, 5)
    assert repr(model).endswith("models/baseline: sst, quora, sts; on cpu>")


def test_the_folder_is_complete_and_its_card_s_example_runs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained / "models/baseline"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (
        config["tokenizer"]
        == sha256_file(folder / "tokenizer.json")
        == sha256_file(trained / "data/prepared/tokenizer.json")
    )
    assert config["tasks"]["sts"] == {"kind": "score", "texts": ["sentence1", "sentence2"], "low": 0, "high": 5}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| sst | a sentence | negative, somewhat negative, neutral," in card
    assert f"{config['parameters']['total']:,} parameters" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(trained)
    (tmp_path / "card.py").write_text(code, encoding="utf-8")
    assert isinstance(runpy.run_path(str(tmp_path / "card.py"))["model"], mtbert.TrainedModel)


def test_elsewhere_without_project_dvc_typer_or_fast(vivid: Path, model: mtbert.TrainedModel, tmp_path: Path) -> None:
    """Another folder, another process, and the package without mtbert/fast."""
    shutil.copytree(vivid / "models/baseline", tmp_path / "copied")
    ignored = shutil.ignore_patterns("__pycache__", "fast")
    shutil.copytree(ROOT / "mtbert", tmp_path / "site/mtbert", ignore=ignored)
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]  # an installed mtbert is not this copy
import mtbert
assert "torch" not in sys.modules and "numpy" not in sys.modules
model = mtbert.load("copied", device="cpu", precision="fp32")
print(model.predict("sts", [("A cat sleeps.", "A dog sleeps.")])[0].score, len(model.encode(["A cat sleeps."])[0]))
for name in ("dvc", "typer", "pandas", "matplotlib", "mtbert.fast", "mtbert.params"):
    assert name not in sys.modules, name
"""
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    score, width = done.stdout.split()
    expected = model.predict("sts", [("A cat sleeps.", "A dog sleeps.")])
    assert isinstance(expected[0], mtbert.Score)
    assert float(score) == pytest.approx(expected[0].score, abs=1e-5)
    assert width == "8"


def test_order_and_memory_of_a_stream(model: mtbert.TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of many lengths come back in their order, no further read ahead than a chunk."""
    monkeypatch.setattr(inference, "CHUNK", 50)
    rng = np.random.default_rng(0)
    words = ["cat", "dog", "house", "tree", "good", "bad", "film", "music", "rain", "train", "blue", "seven"]
    texts = [" ".join(rng.choice(words, int(n))) + f" {number}" for number, n in enumerate(rng.integers(0, 12, 401))]
    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    found: list[Any] = []
    for number, prediction in enumerate(model.predict_iter("sst", stream(), batch_size=7)):
        assert read <= number // 50 * 50 + 50
        found.append(prediction)
    assert len(found) == 401
    alone: list[Any] = [model.predict("sst", [text])[0] for text in texts]
    shares, expected = (np.array([list(one.probabilities.values()) for one in some]) for some in (found, alone))
    assert np.abs(shares - expected).max() < 1e-5 < np.abs(shares - expected[::-1]).max() / 100
    vectors = model.encode(iter(texts))
    assert vectors.shape == (401, 8) and vectors.dtype == np.float32
    each = np.concatenate([model.encode([text]) for text in texts])
    assert np.abs(vectors - each).max() < 1e-5 < np.abs(vectors - each[::-1]).max() / 100
    assert model.encode([]).shape == (0, 8) and model.predict("sst", []) == []


def test_chunks_of_long_texts_end_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "CHARACTERS", 10)
    assert list(inference.chunks(["a" * 6, "b" * 6, "c", "d" * 20], len)) == [["a" * 6, "b" * 6], ["c", "d" * 20]]


def test_encode_gives_the_vector_that_heads_see(model: mtbert.TrainedModel) -> None:
    """The cosine head's score is a function of the two vectors."""
    u, v = model.encode(["A cat sleeps.", "A dog barks loudly!"])
    cosine = float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    (found,) = model.predict("quora", [("A cat sleeps.", "A dog barks loudly!")])
    assert isinstance(found, mtbert.Label)
    assert found.probabilities["duplicate"] == pytest.approx(1 / (1 + np.exp(-cosine)), abs=1e-5)


def test_what_is_too_long_is_cut_with_a_warning(model: mtbert.TrainedModel) -> None:
    text = "word " * 300
    with pytest.warns(mtbert.LongInputWarning, match=r"1 example had more than \d+ tokens"):
        (found,) = model.predict("sst", [text])
    with pytest.warns(mtbert.LongInputWarning):
        assert [found] == model.predict("sst", [text + "more"])


@pytest.mark.parametrize(
    ("views", "lengths", "cut"),
    [
        (("u", "v"), (254, 254), False),
        (("u", "v"), (1, 255), True),
        (("u",), (255, 1), True),
        (("u",), (1, 255), False),
        (("c",), (200, 53), False),
        (("c",), (200, 54), True),
    ],
)
def test_cut_is_what_a_view_of_the_head_loses(
    model: mtbert.TrainedModel, views: tuple[str, ...], lengths: tuple[int, int], cut: bool
) -> None:
    """256 tokens hold 254 of a sentence, or 253 of a pair, beside the special ones."""
    found = model._tokenize(STS, [["word " * length] for length in lengths], views)
    assert found.cut.tolist() == [cut]


def test_loading_leaves_random_numbers_alone(trained: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    mtbert.load(trained / "models/baseline", device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("task", "texts", "message"),
    [
        ("sst", ["good", " "], "example 1: empty sentence; correct it or leave it out"),
        ("sts", [("a", "")], "example 0: empty sentence2"),
        ("sst", ["good", "\udcff"], r"example 1: sentence is not UTF-8 \(byte 0xff at character 1\)"),
        ("sst", ["a\ud800"], r"lone surrogate 0xd800 at character 2"),
        ("sst", ["good", "\x01"], "example 1: sentence has no wordpiece"),
        ("sts", [("a", "\x01")], "example 0: sentence2 has no wordpiece"),
        ("sts", [("\x01", "\x01")], "example 0: sentence1 has no wordpiece"),
        ("sts", ["good"], r"example 0: is 'good', not a pair of sentences \(str, str\)"),
        ("sts", [("a", "b", "c")], "not a pair"),
        ("sst", [("a", "b")], r"not a sentence \(str\)"),
        ("sst", [3], "example 0: is 3"),
        ("sst", "good", "examples are 'good', a single text; put it into a list"),
        ("stss", [("a", "b")], r"models/baseline: has no task 'stss'; did you mean 'sts'\?"),
    ],
)
def test_a_bad_example(model: mtbert.TrainedModel, task: str, texts: list, message: str) -> None:
    with pytest.raises(MtbertError, match=message):
        model.predict(task, texts)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_an_example(model: mtbert.TrainedModel, size: int) -> None:
    for call in (
        lambda: model.predict("sst", ["good"], batch_size=size),
        lambda: model.encode(["good"], batch_size=size),
    ):
        with pytest.raises(MtbertError, match=f"batch_size is {size}; set it to 1 or more"):
            call()


def rewritten(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors, config = load_model(folder)
        config.pop("sha256")
        change(config)
        save_model(folder, tensors, config)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "tokenizer.json: not found; copy the model's folder again",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json: not a tokenizer file"),
        (
            lambda folder: (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " "),
            "tokenizer.json: its bytes changed",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: not found; copy"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
            "its bytes changed .* copy the model's folder",
        ),
        (lambda folder: (folder / "config.json").unlink(), "not a model: it has no config.json"),
        (lambda folder: (folder / "config.json").write_text('{"seal": ""}'), "config.json: damaged .*; copy"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),  # as `mtbert export` writes
            "config.json: not a model that mtbert trained; name the folder of a trained run",
        ),
        (rewritten(lambda config: config.pop("settings")), "an encoder without heads"),
        (rewritten(lambda config: config.pop("preprocess")), "has no preprocess: it was written by an earlier mtbert"),
        (rewritten(lambda config: config["settings"].update(new=1)), r"does not know its settings \(new:"),
        (rewritten(lambda config: config["settings"].update(pooling="max2")), r"settings \(pooling:"),
        (rewritten(lambda config: config["settings"]["heads"].pop("sst")), "tensors do not fit the model|settings"),
    ],
)
def test_a_folder_that_cannot_be_used(
    trained: Path, tmp_path: Path, edit: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(trained / "models/baseline", tmp_path / "copied")
    edit(tmp_path / "copied")
    with pytest.raises(MtbertError, match=message):
        mtbert.load(tmp_path / "copied")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(MtbertError, match="device is 'gpu'; valid: auto, cpu, cuda"):
        mtbert.load("baseline", device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(MtbertError, match="torch sees no CUDA device; set it to auto or cpu"):
            mtbert.load("baseline", device="cuda")


def test_the_plain_engine_predicts_the_same(
    vivid: Path, model: mtbert.TrainedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "_fast", lambda: None)
    plain = mtbert.load(vivid / "models/baseline", device="cpu", precision="fp32")
    assert np.allclose(plain.encode(["A cat sleeps."]), model.encode(["A cat sleeps."]), atol=1e-5)
    assert capsys.readouterr().err == ""
