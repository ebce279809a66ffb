"""The checks of the machine, and a machine that has nothing."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtbert import engines
from mtbert.doctor import check, examine, machine, project
from mtbert.doctor.check import Check


def test_missing_programs_are_lines_not_tracebacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(machine.importlib, "import_module", nothing)
    monkeypatch.setattr(check.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(project.shutil, "which", lambda _: None)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    found = list(examine(tmp_path))
    problems = [one.what.split()[0] for one in found if one.level == "problem"]
    assert problems == ["torch", "0", "DVC", f"{tmp_path}/params.yaml:"]
    assert all(one.remedy for one in found if one.level != "ok")
    assert all("\n" not in str(one) for one in found)


def test_a_container_s_limit_is_a_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(16)))
    for text, level in (("max 100000", "ok"), ("250000 100000", "note"), ("1600000 100000", "ok")):
        machine.QUOTA.write_text(text, encoding="utf-8")
        found = machine.processor(tmp_path)
        assert found.level == level
        assert ("set compute.threads: 2 " in found.remedy) == (level == "note")


def test_a_compiler_is_advised_only_where_there_is_something_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    fast = SimpleNamespace(kernels=lambda: (False, "no compiled kernels: no g++ found"))
    monkeypatch.setattr(engines, "_fast", lambda: fast)
    assert "install g++ (" in machine.kernels(tmp_path).remedy
    monkeypatch.setattr(engines, "_fast", lambda: None)
    what = "mtbert/fast is not installed; training runs by plain torch, which is slower"
    assert machine.kernels(tmp_path) == Check("ok", what)


@pytest.mark.parametrize(
    ("versions", "build"),
    [
        ({"cuda": "12.8", "hip": None}, "CUDA 12.8"),
        ({"cuda": None, "hip": "6.4"}, "ROCm 6.4"),
        ({"cuda": None}, "CPUs only"),
    ],
)
def test_what_torch_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], build: str
) -> None:
    torch = SimpleNamespace(__version__="2.9", version=SimpleNamespace(**versions))
    monkeypatch.setattr(machine.importlib, "import_module", lambda _: torch)
    assert machine.torch(tmp_path).what.startswith(f"torch 2.9, built for {build}")
