"""The README's generated parts."""

import shutil
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.report.readme import RESULTS, graph_picture, main, update_block

ROOT = Path(__file__).parents[2]


def test_a_block_is_replaced_and_the_rest_kept() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert update_block(text, "x", "new\n") == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"
    assert update_block(update_block(text, "x", "new"), "x", "new") == update_block(text, "x", "new")


@pytest.mark.parametrize("text", ["", "<!-- begin x -->", "<!-- end x --> <!-- begin x -->"])
def test_missing_markers_are_an_error(text: str) -> None:
    with pytest.raises(MtbertError, match="begin x"):
        update_block(text, "x", "new")


def test_the_picture_follows_the_data() -> None:
    picture = graph_picture(ROOT / "dvc.yaml")
    assert '["plan"]' not in picture, "an arrow to every stage would hide the others"
    lines = [line.strip().split(" --> ") for line in picture.split("\n") if "-->" in line]
    edges = {
        (source, target)
        for sources, targets in lines
        for source in sources.split(" & ")
        for target in targets.split(" & ")
    }
    assert {
        ("fetch", "prepare"),
        ("encoder", "prepare"),
        ("encoder", "convert_RUN"),
        ("convert_RUN", "train_RUN"),
    } <= edges
    assert {
        ("train_RUN", "evaluate_RUN"),
        ("evaluate_RUN", "table_NAME"),
        ("evaluate_RUN", "report"),
        ("evaluate_RUN", "statistics"),
        ("statistics", "table_NAME"),
        ("table_NAME", "report"),
        ("figure_NAME", "report"),
    } <= edges
    assert ("train_RUN", "convert_RUN") not in edges, "models/pretrained is no run"
    assert max(map(len, picture.split("\n"))) < 100
    assert not [edge for edge in edges if edge[1] in ("fetch", "encoder") or edge[0] == "report"]


def test_the_readme_s_generated_parts_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["readme", "--check"])
    main()  # exits with a message if the graph or the results table is out of date


def test_check_notices_an_outdated_part_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("README.md", "dvc.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / RESULTS).parent.mkdir(parents=True)
    (tmp_path / RESULTS).write_text("Another result.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["readme", "--check"])
    with pytest.raises(SystemExit, match="out of date"):
        main()
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
