"""Runs whose adapter stays in the encoder: trained, evaluated, loaded and, where that is possible, exported."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import mtbert
from mtbert.errors import MtbertError
from mtbert.export.command import main as export
from mtbert.pretrained.store import read_config
from stages import convert, evaluate, train

RUN = "best_performance"
SIZES = {
    "houlsby": {"size": 4},
    "pal": {"size": 4},
    "mtlora": {"rank": 2, "task_rank": 1, "alpha": 4, "dropout": 0.1},
}


@pytest.mark.parametrize("method", SIZES)
def test_a_run_can_be_used(method: str, project: Path, change: Callable[..., None], tmp_path: Path) -> None:
    adapter = {"method": method, "train_rest": False, "start_from": "pretrained", "learning_rate": 0.05}
    change(**{RUN: {"adapter": {**adapter, **SIZES[method]}}})
    for stage in (convert, train, evaluate):
        stage.main(RUN)
    model = mtbert.load(RUN, device="cpu", precision="fp32")
    for task in ("sst", "sts"):
        with (project / f"results/{RUN}/examples/{task}-dev.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pairs = [(row["sentence1"], row["sentence2"]) if task == "sts" else row["sentence1"] for row in rows]
        for row, found in zip(rows, model.predict(task, pairs), strict=True):
            # As evaluate predicted.
            if isinstance(found, mtbert.Score):
                assert f"{found.score:.9g}" == row["prediction"]
            else:
                assert f"{found.probabilities[found.label]:.6f}" == row["score"]
    per_task = method != "houlsby"
    card = (project / f"models/{RUN}/README.md").read_text(encoding="utf-8")
    assert ('model.encode(["A cat sleeps."], task="sst")' in card) == per_task
    if per_task:
        with pytest.raises(MtbertError, match="depends on the task; name one of sst, quora, sts"):
            model.encode(["A cat sleeps."])
    assert model.encode(["A cat sleeps."], task="sst").shape == (1, 8)
    parameters = read_config(project / "models" / RUN)["parameters"]
    assert parameters["total"] == sum(p.numel() for p in model.network.parameters()), "the adapter stays, so it counts"

    _exports(method, tmp_path / "exported")


def _exports(method: str, destination: Path) -> None:
    refused = (
        rf"{method} of size 4.*`mtbert predict`" if method != "mtlora" else r"mtlora of rank 2.*use --to transformers"
    )
    for to in ("sentence-transformers", "peft", *(("transformers", "onnx") if method != "mtlora" else ())):
        with pytest.raises(MtbertError, match=rf"^models/{RUN}: .*{refused}"):
            export(RUN, destination, to)
    assert not destination.exists()
    if method == "mtlora":
        export(RUN, destination, "transformers")
        assert {path.name for path in destination.iterdir()} == {"sst", "quora", "sts"}
