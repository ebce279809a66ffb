"""convert: an adapter for a run that has one, a placeholder for a run without one; and an adapter that starts from a trained run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtbert.errors import MtbertError
from mtbert.params import load_params
from mtbert.peft.convert import merge
from mtbert.pipeline.models import load_start
from mtbert.pretrained.store import load_model, read_config
from mtbert.seal import seal
from stages import convert, evaluate, train

START = "best_performance"


def test_a_run_without_an_adapter_has_a_placeholder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.main("baseline")
    assert capsys.readouterr().out == "baseline: no adapter for the pretrained weights\n"
    folder = project / "models/converted/baseline"
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == {"adapter": None}


def test_the_plain_run_s_folder_does_not_depend_on_its_settings(project: Path, change: Callable[..., None]) -> None:
    before = (project / "build/plan/convert/baseline.json").read_bytes()
    change(baseline={"seed": 3, "pooling": "max", "head_dropout": 0.1})
    assert (project / "build/plan/convert/baseline.json").read_bytes() == before


def test_removing_the_adapter_removes_its_weights(project: Path, change: Callable[..., None]) -> None:
    convert.main("dora_r8")
    assert (project / "models/converted/dora_r8/model.safetensors").is_file()
    change(dora_r8={"adapter": None})
    convert.main("dora_r8")
    assert [path.name for path in (project / "models/converted/dora_r8").iterdir()] == ["config.json"]


def test_an_adapter_names_the_weights_that_it_belongs_to(project: Path) -> None:
    convert.main("dora_r4")
    tensors, config = load_model(project / "models/converted/dora_r4")
    assert config["parent"]["sha256"] == read_config(project / "models/pretrained")["sha256"]
    assert config["adapter"]["rank"] == 4
    assert {name.rpartition(".")[2] for name in tensors} == {"magnitude", "lora_a", "lora_b"}


@pytest.fixture
def starting(change: Callable[..., None]) -> None:
    change(dora_r4={"adapter": {"start_from": START}})
    convert.main("dora_r4")
    convert.main(START)


def refused() -> None:
    with pytest.raises(MtbertError) as raised:
        train.main("dora_r4")
    assert str(raised.value) == (
        f"params.yaml: runs.dora_r4.adapter.start_from is {START}, which is not trained yet with its present settings, "
        f"code and data; run `dvc repro train@{START}`, then the same command again"
    )


@pytest.mark.usefixtures("starting")
def test_an_adapter_starts_from_a_trained_run(project: Path) -> None:
    assert [path.name for path in (project / "models/converted/dora_r4").iterdir()] == ["config.json"]
    refused()
    train.main(START)
    model = load_start(load_params().runs["dora_r4"], "dora_r4")
    trained, _ = load_model(project / "models" / START)
    found = model.state_dict()
    merge(model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, trained[name])
    assert {name.rpartition(".")[2] for name in found.keys() - trained.keys()} == {"magnitude", "lora_a", "lora_b"}
    train.main("dora_r4")
    evaluate.main("dora_r4")
    assert (project / "results/dora_r4/metrics.json").is_file()


@pytest.mark.usefixtures("starting")
def test_a_start_of_other_settings_or_data_is_refused(project: Path, change: Callable[..., None]) -> None:
    train.main(START)
    stale = project / "data/prepared/dev/sst/examples.csv"
    sound = stale.read_bytes()
    stale.write_bytes(sound + b"another,row,0\n")
    seal(project / "data/prepared/dev")
    refused()
    stale.write_bytes(sound)
    seal(project / "data/prepared/dev")
    train.main("dora_r4")
    change(best_performance={"epochs": 2}, dora_r4={"adapter": {"start_from": START}})
    refused()


@pytest.mark.usefixtures("starting")
def test_a_model_whose_start_was_trained_again_is_refused(change: Callable[..., None]) -> None:
    train.main(START)
    train.main("dora_r4")
    change(best_performance={"seed": 4}, dora_r4={"adapter": {"start_from": START}, "seed": 11711})
    train.main(START)
    with pytest.raises(
        MtbertError,
        match=r"models/dora_r4/record.json: .*: parents \(models/best_performance\); run `dvc repro --force --single-item train@dora_r4`",
    ):
        evaluate.main("dora_r4")
