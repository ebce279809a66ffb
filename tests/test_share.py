"""docs/share.md: a remote gives a fresh clone its trained models, and `dvc gc` keeps what is in use."""

from pathlib import Path

import pytest

from tests.examples import compared, renewed, shared


@pytest.mark.slow
def test_the_page_s_commands_share_a_model(root: Path, tmp_path: Path) -> None:
    project = shared(tmp_path / "mtbert")
    checkpoint = project / ".mtbert" / ("a" * 24) / "latest.json"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    page = (root / "docs/share.md").read_text(encoding="utf-8")
    fresh = renewed(page, project)
    assert fresh.count("Data and pipelines are up to date.") == 2, "in the clone, and after dvc gc"
    assert compared(fresh) == compared(page), "run `python -m tests.examples --write`"
    assert checkpoint.exists()
    trained, pulled = (folder / "models/best_performance" for folder in (project, tmp_path / "clone"))
    assert {path.name for path in pulled.iterdir()} == {path.name for path in trained.iterdir()} >= {"README.md"}
    pushed = {path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert (trained / "model.safetensors").read_bytes() in pushed
    rows = [row for file in project.glob("data/raw/*.csv") for row in file.read_bytes().splitlines()[1:]]
    assert not [row for row in rows if row.split(b"\t")[2] in b"".join(pushed)], "no sentence goes with the models"
