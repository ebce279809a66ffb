"""train writes a record of the run's inputs, equal for equal inputs, and a log of when and where it ran."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mtbert.cli import app
from mtbert.data.arrays import Split
from mtbert.errors import MtbertError
from mtbert.params import load_params
from mtbert.pipeline import training
from mtbert.pipeline.plans import planned
from mtbert.pipeline.provenance import plan_hash, read_log, read_record
from mtbert.pretrained.store import read_config
from mtbert.report.figures import render
from mtbert.report.statistics import Statistics
from mtbert.training.loop import Training
from mtbert.training.optimization import Optimization
from stages import evaluate, plan, train
from stages.figure import FIGURES
from tests.project import add_settings
from tests.stage_fixtures import ROOT


def test_the_record_holds_the_run_s_inputs(trained: Path) -> None:
    record = json.loads((trained / "models/baseline/record.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m stages.train baseline"
    assert record["settings"] == load_params(trained / "params.yaml").runs["baseline"].model_dump()
    pretrained = read_config(trained / "models/pretrained")["sha256"]
    assert record["parents"] == [{"folder": "models/pretrained", "sha256": pretrained}]
    plan = json.loads((trained / "build/plan/train/baseline.json").read_text(encoding="utf-8"))
    assert record["plan"] == plan_hash(plan)
    assert len(record["data"]) == 24
    assert record["weights"] == read_config(trained / "models/baseline")["sha256"]
    assert (record["threads"], record["device"], record["precision"]) == (1, "cpu", "fp32")
    assert record["torch"] == torch.__version__
    log = read_log(trained / ".mtbert", "train", "baseline", record["weights"])
    assert log["seconds"] > 0
    assert log["tokens_per_second"] > 0 and log["peak_bytes"] > 10_000_000
    assert log["commit"].startswith(("commit ", "not under git"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_inputs_give_equal_bytes_in_another_folder_at_another_time(
    trained: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.main("baseline")
    shutil.copytree(trained, tmp_path / "deeper/again", symlinks=True)
    monkeypatch.chdir(tmp_path / "deeper/again")
    for made in ("models/baseline", ".mtbert", "plots"):
        shutil.rmtree(made)
    train.main("baseline")
    evaluate.main("baseline")
    for out in ("models/baseline", "plots", "results/baseline", "metrics"):
        here = files(Path(out))
        assert here
        assert here == files(project / out)
    logs = [json.loads((folder / ".mtbert/log/train-baseline.json").read_bytes()) for folder in (Path(), project)]
    assert logs[0]["seconds"] != logs[1]["seconds"]


def test_the_command_trains_with_the_present_params_yaml(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike `python -m stages.train`, which DVC starts after `plan`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert text.count('"seed": 11711') == 2, "of the sample data and of baseline"
    (project / "params.yaml").write_text(text[::-1].replace("11711"[::-1], "3", 1)[::-1], encoding="utf-8")
    before = read_record(project / "models/baseline", "")
    done = CliRunner().invoke(app, ["train", "baseline"])
    assert done.exit_code == 0, done.output
    after = read_record(project / "models/baseline", "")
    assert (before["settings"]["seed"], after["settings"]["seed"]) == (11711, 3)
    assert after["plan"] == plan_hash(planned("train", "baseline")) != before["plan"]


def test_tasks_are_trained_in_the_run_s_order(project: Path, change: Callable[..., None]) -> None:
    change(sampler_sequential={"tasks": ["sts", "sst", "quora"]})
    train.main("sampler_sequential")
    with (project / "models/sampler_sequential/steps.csv").open(encoding="utf-8") as file:
        order = [row["task"] for row in csv.DictReader(file)]
    assert order == ["sts"] * 2 + ["sst"] * 2 + ["quora"] * 2


def test_an_aggregation_without_its_package_is_named_by_its_key(
    change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(sampler_sequential={"sampler": "joint", "aggregation": "pcgrad"})
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(
        MtbertError, match=r"^params\.yaml: runs\.sampler_sequential\.aggregation: pcgrad needs torchjd"
    ):
        train.main("sampler_sequential")


def test_a_joint_run_measures_its_conflicts(project: Path, change: Callable[..., None]) -> None:
    """Datasets of 16 examples in batches of 8: two steps, each with a line for every task."""
    change(best_performance={"sampler": "joint", "measure_conflicts": 1})
    train.main("best_performance")
    steps = pd.read_csv(project / "models/best_performance/steps.csv")
    assert steps["step"].tolist() == [1, 1, 1, 2, 2, 2] and steps["task"].tolist() == ["sst", "quora", "sts"] * 2
    assert pd.read_csv(project / "models/best_performance/history.csv")["step"].tolist() == [0, 2]
    evaluate.main("best_performance")
    figure = FIGURES["conflicts"](project / "results", {"best": "best_performance"}, Statistics({}, {}))
    assert figure.data["step"].unique().tolist() == [0, 1]
    assert set(figure.data["layer"]) == {"embeddings", "1", "all"} and len(figure.data) == 2 * 3 * 3
    titles = ["sst and quora", "sst and sts", "quora and sts", "layers in conflict"]
    assert [title for title, _ in figure.panels] == titles
    render(figure, project / "conflicts")
    assert (project / "conflicts.png").read_bytes().startswith(b"\x89PNG")
    evaluate.main("baseline")
    with pytest.raises(MtbertError, match=r"runs\.baseline measures no conflicts; set .*measure_conflicts"):
        FIGURES["conflicts"](project / "results", {"base": "baseline"}, Statistics({}, {}))


def test_a_run_pretrains_its_encoder_further_on_the_training_text_alone(
    project: Path, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    real = training.pretrain_further
    monkeypatch.setattr(
        training,
        "pretrain_further",
        lambda engine, data, *more, **options: real(engine, kept(seen, data), *more, **options),
    )
    change(
        sampler_sequential={
            "further_pretraining": {"steps": 5, "batch_size": 4, "learning_rate": 1e-3},
            "optimization": {"hold_out": 0.25},
        }
    )
    train.main("sampler_sequential")
    assert {(split.task, split.split) for split in seen} == {(task, "train") for task in ("sst", "quora", "sts")}
    assert {len(split) for split in seen} == {12}, "without what is held out"
    assert pd.read_csv(project / "models/sampler_sequential/further.csv")["step"].tolist() == [1, 2, 3, 4, 5]
    evaluate.main("sampler_sequential")
    before = read_config(project / "models/sampler_sequential")["sha256"]
    monkeypatch.setattr(train, "pretrained_further", lambda *_: [])
    train.main("sampler_sequential")
    assert read_config(project / "models/sampler_sequential")["sha256"] != before


def kept(seen: list[Split], data: Iterable[Split]) -> list[Split]:
    seen += data
    return seen


def test_the_joint_run_of_docs_training_is_valid(tmp_path: Path) -> None:
    blocks = (ROOT / "docs/training.md").read_text(encoding="utf-8").split("```yaml\n")
    block = next(one.partition("```")[0] for one in blocks if "surgery:" in one)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    add_settings(tmp_path, block)
    run = load_params(tmp_path / "params.yaml").runs["surgery"]
    assert (run.sampler, run.aggregation, run.measure_conflicts) == ("joint", "pcgrad", 20)


def test_the_run_of_docs_training(project: Path, change: Callable[..., None]) -> None:
    """docs/training.md: every key of `optimization` at once; what is held out is neither trained on nor counted."""
    block = (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    run = YAML(typ="safe").load(block)["runs"]["scheduled"]
    assert run.pop("from") == "best_performance"
    assert run["optimization"].keys() == Optimization.model_fields.keys()
    change(best_performance={**run, "seed": 3})
    train.main("best_performance")
    config = read_config(project / "models/best_performance")
    history = pd.read_csv(project / "models/best_performance/history.csv")
    assert config["training"]["sizes"] == {"sst": 15, "quora": 15, "sts": 15}
    assert config["training"]["kept_epoch"] == history["held_out"].idxmax() and len(history) == 1 + run["epochs"]
    evaluate.main("best_performance")
    assert json.loads((project / "metrics/best_performance.json").read_text())["overall"] > 0


def killed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """End every training at once, and return the list to which each adds its folder of checkpoints."""
    places: list[Path] = []

    def die(started: Training) -> None:
        places.append(started.work)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", die)
    return places


def test_a_killed_run_resumes_unless_an_input_changed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same settings the checkpoint folder is the same; with another max_tokens it is another."""
    places = killed(monkeypatch)
    for max_tokens in (256, 256, 255):
        text = (project / "params.yaml").read_text(encoding="utf-8")
        (project / "params.yaml").write_text(
            re.sub(r'"max_tokens": \d+', f'"max_tokens": {max_tokens}', text), encoding="utf-8"
        )
        plan.main()
        with pytest.raises(KeyboardInterrupt):
            train.main("baseline")
    assert places[0] == places[1] != places[2]


def test_a_killed_run_resumes_with_another_number_of_threads(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun sets another one."""
    places = killed(monkeypatch)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with pytest.raises(KeyboardInterrupt):
            train.main("baseline")
    assert places[0] == places[1]


def test_an_edit_of_the_code_starts_from_the_beginning(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan lists the code, and the checkpoints' folder is named by the plan."""
    places = killed(monkeypatch)
    path = project / "build/plan/train/baseline.json"
    for digit in ("0", "0", "1"):
        about = json.loads(path.read_text(encoding="utf-8"))
        about["code"]["mtbert/training/loop.py"] = digit * 64
        path.write_text(json.dumps(about), encoding="utf-8")
        with pytest.raises(KeyboardInterrupt):
            train.main("baseline")
    assert places[0] == places[1] != places[2]
