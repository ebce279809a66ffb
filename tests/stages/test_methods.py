"""Every method of adapters from params.yaml to a model that predicts: convert, train, evaluate, load."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import mtbert
from mtbert.params import load_params
from mtbert.peft.registry import ADAPTERS
from mtbert.pipeline.models import load_run, load_start
from mtbert.pretrained.store import load_model
from stages import convert, evaluate, train

RUN = "sampler_round_robin"
SIZES = {"rank": 2, "task_rank": 1, "size": 4, "alpha": 2, "dropout": 0.1, "block_size": 4, "norm_gradient": "exact"}


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_run(method: str, project: Path, change: Callable[..., None]) -> None:
    sizes = {key: value for key, value in SIZES.items() if key in ADAPTERS[method].model_fields}
    change(**{RUN: {"adapter": {"method": method, "train_rest": False, "start_from": "pretrained", **sizes}}})
    for stage in (convert, train, evaluate):
        stage.main(RUN)
    run = load_params().runs[RUN]
    start, trained = load_start(run, RUN), load_run(run, RUN).state_dict()
    trains = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    kept, config = load_model(project / "models" / RUN)
    assert {name for name in kept if ".principal_" not in name} == trains and config["base_weights"]
    unchanged = {name for name, tensor in start.state_dict().items() if tensor.equal(trained[name])}
    assert not trains & {name for name in unchanged if "key.bias" not in name}, "no score depends on a key's bias"
    assert unchanged >= trained.keys() - trains
    found = json.loads((project / f"results/{RUN}/metrics.json").read_bytes())
    assert found["training"]["adapter_learning_rate"] == 7e-4 and found["dev"]["overall"] is not None
    assert run.adapter is not None
    assert f"fine-tuned with {run.adapter.title}" in (project / f"models/{RUN}/README.md").read_text(encoding="utf-8")
    model = mtbert.load(project / "models" / RUN, device="cpu", precision="fp32")
    assert 0 <= model.predict("sts", [("A cat sleeps.", "A dog sleeps.")])[0].score <= 5
