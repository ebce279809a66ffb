"""The engine for a model: a fast one where there is one, else the plain one with the reason; and what both share."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtbert import engines
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute
from mtbert.training.engine import Plain, parameter_groups
from mtbert.training.recipe import Recipe
from tests.tiny import TINY, adapt

CPU = Compute(torch.device("cpu"), False)
NOTE = "note: using plain torch, which is slower: {}\n"


def test_without_the_folder_the_plain_engine_does_all_the_work(
    make_model: Callable[..., MultitaskModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "_fast", lambda: None)
    model = make_model()
    assert type(engines.engine_for(model, CPU)) is Plain and model.engine is None
    assert capsys.readouterr().err == NOTE.format("mtbert/fast is not installed")
    assert engines.kernels() == (False, "mtbert/fast is not installed")


@pytest.mark.parametrize(
    ("hidden", "lines", "end"),
    [
        ("mtbert.fast", "print(engines._fast())", "None\n"),
        ("mtbert.fast.cpu.engine", "engines._fast()", "mtbert.fast.cpu.engine is hidden\n"),
    ],
    ids=["absent", "broken"],
)
def test_a_folder_that_is_absent_is_told_from_one_that_is_broken(hidden: str, lines: str, end: str, root: Path) -> None:
    if hidden != "mtbert.fast":
        pytest.importorskip("mtbert.fast")
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {hidden!r}:\n"
        "            raise ModuleNotFoundError(name + ' is hidden', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"from mtbert import engines\n{lines}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False, capture_output=True, text=True)
    assert (done.stdout or done.stderr).endswith(end)
    assert (done.returncode == 0) == (hidden == "mtbert.fast")


def test_a_model_that_the_kernels_do_not_take(
    make_model: Callable[..., MultitaskModel], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mtbert.fast")
    for model, reason in (
        (make_model(config=replace(TINY, hidden=24)), "the kernels take heads of width 16, 32 or 64 .*"),
        (make_model(config=replace(TINY, intermediate=24)), ".* a feed-forward width that is a multiple of 16"),
        (make_model().double(), "the kernels take float32 weights"),
    ):
        assert type(engines.engine_for(model, CPU)) is Plain and model.engine is None
        assert re.fullmatch(NOTE.format(reason), capsys.readouterr().err)


def test_a_new_engine_releases_the_old_one(make_model: Callable[..., MultitaskModel]) -> None:
    class Old:
        released = 0

        def release(self) -> None:
            self.released += 1

    model, old = make_model(), Old()
    model.engine = old  # type: ignore[assignment]
    found = engines.engine_for(model, CPU)
    assert old.released == 1 and model.engine is (None if type(found) is Plain else found)


@pytest.mark.parametrize("rate", [None, 1e-2])
def test_an_adapter_s_own_parameters_have_its_rate_and_no_others(
    make_model: Callable[..., MultitaskModel], rate: float | None
) -> None:
    model = make_model()
    adapt(model, "dora")
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model, Recipe("sequential", 1, 1, 8, 1e-3, rate))
    rates = {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}
    assert rates.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    parts = {"magnitude", "lora_a", "lora_b"}
    assert {name.rpartition(".")[2] for name in rates} > parts
    for name, found in rates.items():
        assert found == (rate or 1e-3 if name.rpartition(".")[2] in parts else 1e-3), name
    assert len(groups) == (1 if rate is None else 2)
