"""Of a package that the machine has too, the bundle's is used only where the machine's does not do."""

from pathlib import Path

from mtbert.bundle.packages import arrange


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
