"""The lists of the code that each stage runs, of the project itself and of an edited copy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert.files import sha256_file
from stages import code
from stages.common import CODE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's code, and the current folder of the test."""
    for package in ("mtbert", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lists() -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in CODE.iterdir()}


def test_a_list_holds_each_file_with_its_checksum(copy: Path) -> None:
    code.main()
    train = json.loads(lists()["train"])
    assert list(train) == sorted(train)
    assert all(sha256_file(copy / file) == digest for file, digest in train.items())
    assert {"stages/train.py", "stages/models.py", "mtbert/training/loop.py", "mtbert/__init__.py"} <= set(train)
    assert not [file for file in train if file.startswith("mtbert/report") or file == "mtbert/cli.py"]
    assert "mtbert/report/page.html.j2" in json.loads(lists()["report"])


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("mtbert/evaluation/leaderboard.py", {"evaluate"}),
        ("mtbert/report/tables.py", {"table", "report"}),
        ("mtbert/report/page.html.j2", {"report"}),
        ("mtbert/peft/dora.py", {"convert", "train", "evaluate"}),
        ("stages/fetch.py", {"fetch"}),
        ("mtbert/cli.py", set()),
    ],
)
def test_an_edit_changes_the_lists_of_the_stages_that_run_it_and_no_other(
    copy: Path, file: str, stages: set[str]
) -> None:
    code.main()
    before = lists()
    (copy / file).write_bytes((copy / file).read_bytes() + b"\n")
    code.main()
    after = lists()
    assert set(after) == set(before)
    assert {stage for stage in after if after[stage] != before[stage]} == stages


def test_a_stage_that_is_no_more_leaves_no_list(copy: Path) -> None:
    code.main()
    (copy / "stages/figure.py").unlink()
    code.main()
    assert "figure" not in lists()


def test_it_loads_nothing_heavy() -> None:
    """It runs at every edit."""
    told = "import sys; import stages.code; print(*({'torch', 'numpy', 'pydantic', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
