"""The bundle's package is used where the machine has none or one of an unsuitable version; what cannot be copied is an error."""

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mtbert.bundle.packages import GIVEN, HERE, arrange, collect, installed
from mtbert.errors import MtbertError
from mtbert.training.aggregation import requirements


def package(folder: Path, name: str, version: str, *requires: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{name}.py").touch()
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n", encoding="utf-8")


@pytest.mark.parametrize("editable", [True, False])
def test_what_cannot_be_copied_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool) -> None:
    package(tmp_path / "there", "mine", "1.0")
    info, what = tmp_path / "there/mine-1.0.dist-info", "an editable install" if editable else "without a list"
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": "file:///src", "dir_info": {"editable": True}}))
    else:
        (info / "RECORD").unlink()
    monkeypatch.syspath_prepend(str(tmp_path / "there"))
    monkeypatch.setattr("mtbert.bundle.packages.required", lambda names: {"mine"} & set(names))
    (tmp_path / "site").mkdir()
    with pytest.raises(MtbertError, match=rf"^mine: .*{what}.* --no-deps mine==1\.0`"):
        collect(tmp_path / "site", ["mine"], HERE)


def test_of_two_versions_the_first_counts_and_leftovers_do_not(tmp_path: Path) -> None:
    first, second = tmp_path / "user", tmp_path / "system"
    package(tmp_path / "site", "old", "3.1")
    package(first, "old", "2.9")
    package(second, "old", "3.0")
    (second / "~ld-1.0.dist-info").mkdir()
    assert arrange(tmp_path / "site", tmp_path / "first", ["old>=3"], [str(first), str(second)]) == ["old"]
    assert not arrange(tmp_path / "site", tmp_path / "none", ["old>=3"], [str(second), str(first)])


def test_the_machine_s_version_is_kept_where_it_does(tmp_path: Path) -> None:
    site, machine = tmp_path / "site", tmp_path / "machine"
    package(site, "missing", "2.0", "old>=3", "fine>=1", "other>=9; extra == 'x'")
    for name, ours, theirs in (
        ("old", "3.1", "2.9"),
        ("fine", "5.0", "1.0"),
        ("other", "9.0", "1.0"),
        ("core", "7", "6"),
    ):
        package(site, name, ours, *(["core==7"] if name == "old" else ["core==5"]))
        package(machine, name, theirs)
    assert arrange(site, tmp_path / "first", ["fine>=0.5", "elsewhere>=1"], [str(machine)]) == ["old", "core"]
    assert {path.name for path in (tmp_path / "first").glob("*.py")} == {"old.py", "core.py"}


def test_an_aggregation_s_packages_are_those_of_torchjd_s_extra() -> None:
    pytest.importorskip("torchjd")
    of_extra = [line for line in installed("torchjd").requires or () if "quadprog-projector" in line]
    names = {Requirement(line).name for line in of_extra} - set(GIVEN)
    assert {"torchjd", *names} == set(requirements("upgrad"))
