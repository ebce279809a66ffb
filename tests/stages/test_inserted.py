"""Runs whose adapter stays in the encoder: trained, evaluated, loaded and, where that is possible, exported."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtbert
from mtbert.errors import MtbertError
from mtbert.export.command import main as export
from mtbert.pretrained.store import read_config
from stages import convert, evaluate, train

RUN = "best_performance"
ADAPTERS = {
    "houlsby": {"size": 4},
    "pal": {"size": 4},
    "mtlora": {"rank": 2, "task_rank": 1, "alpha": 4, "dropout": 0.1},
}


@pytest.fixture(params=ADAPTERS)
def method(request: pytest.FixtureRequest, project: Path, change: Callable[..., None]) -> str:
    """A method, with which RUN is trained and evaluated."""
    adapter = {"method": request.param, "train_rest": False, "start_from": "pretrained", "learning_rate": 0.05}
    change(**{RUN: {"adapter": {**adapter, **ADAPTERS[request.param]}}})
    for stage in (convert, train, evaluate):
        stage.main(RUN)
    return str(request.param)


def test_a_run_can_be_used(method: str, project: Path, tmp_path: Path) -> None:
    model = mtbert.load(RUN, device="cpu", precision="fp32")
    for task in ("sst", "sts"):
        with (project / f"results/{RUN}/examples/{task}-dev.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pairs = [(row["sentence1"], row["sentence2"]) if task == "sts" else row["sentence1"] for row in rows]
        for row, found in zip(rows, model.predict(task, pairs), strict=True):
            score: Any = found.score if isinstance(found, mtbert.Score) else found.probabilities[found.label]
            assert f"{score:.6f}" == row["score"], "as evaluate predicted"
    per_task = method != "houlsby"
    card = (project / f"models/{RUN}/README.md").read_text(encoding="utf-8")
    assert ('model.encode(["A cat sleeps."], task="sst")' in card) == per_task
    if per_task:
        with pytest.raises(MtbertError, match="depends on the task; name one of sst, quora, sts"):
            model.encode(["A cat sleeps."])
    assert model.encode(["A cat sleeps."], task="sst").shape == (1, 8)
    parameters = read_config(project / "models" / RUN)["parameters"]
    assert parameters["total"] == sum(p.numel() for p in model.network.parameters()), "the adapter stays, so it counts"


def test_exports(method: str, tmp_path: Path) -> None:
    folder = f"models/{RUN}"
    if method != "mtlora":
        for to in ("transformers", "sentence-transformers", "onnx", "peft"):
            with pytest.raises(MtbertError, match=rf"^{folder}: .*{method} of size 4.*`mtbert predict`"):
                export(RUN, tmp_path / "out", to)
        return
    for to in ("sentence-transformers", "peft"):
        with pytest.raises(MtbertError, match=rf"^{folder}: .*mtlora of rank 2.*use --to transformers"):
            export(RUN, tmp_path / "out", to)
    export(RUN, tmp_path / "out", "transformers")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sst", "quora", "sts"}
