"""What `dvc plots` shows: DVC's own code fills our templates with the data that the stages write, and Vega-Lite draws them."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from dvc.render.converter.vega import VegaConverter
from dvc_render import VegaRenderer
from dvc_render.html import HTML

from mtbert.report import offline
from mtbert.report.figures import FIGURES, write_data
from mtbert.report.statistics import Statistics
from mtbert.tabular import write_csv
from tests.report.conftest import ROWS

TEMPLATES = Path(__file__).parents[2] / ".dvc/plots"
CURVES = {"epoch": [0, 1], "step": [0, 9], "train_loss": [None, 1.5], "train_sst": [0.1, 0.4], "dev_sst": [0.2, 0.3]}
CURVES |= {"dev_quora": [0.6, 0.7], "dev_sts": [-0.25, 0.5], "dev_overall": [None, 0.6]}


def filled(name: str, path: Path, revisions: tuple[str, ...] = ("workspace",)) -> dict[str, Any]:
    """The plot as `dvc plots` passes it to Vega-Lite."""
    points, properties = [], {}
    for revision in revisions:
        with path.open(encoding="utf-8", newline="") as file:
            converter = VegaConverter("x.csv", {"x.csv": list(csv.DictReader(file))}, {"title": "a run"})
        found, properties = converter.flat_datapoints(revision)
        points += found
    properties |= {"template": name, "template_dir": str(TEMPLATES), "revs_with_datapoints": list(revisions)}
    return VegaRenderer(points, "x.csv", **properties).get_filled_template()


@pytest.fixture
def data(results: Path, tmp_path: Path, statistics: Statistics) -> dict[str, Path]:
    """Template -> the file that it shows."""
    for name, make in FIGURES.items():
        write_data(make(results, ROWS[name], statistics), tmp_path / f"{name}.csv")
    write_csv(tmp_path / "run.csv", list(CURVES), zip(*CURVES.values(), strict=True))
    return {name: tmp_path / f"{name}.csv" for name in (*FIGURES, "run")}


def drawn(spec: dict[str, Any]) -> list[str]:
    """The texts in the picture."""
    svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="5.20")
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_each_has_a_template_with_a_title_and_no_field_that_the_data_lack(data: dict[str, Path]) -> None:
    assert {path.stem for path in TEMPLATES.glob("*.json")} == set(data)
    for name, path in data.items():
        spec = filled(name, path)
        text = json.dumps(spec)
        assert "<DVC" not in text
        assert ("a run" if name == "run" else f"Figure {name[-1]}: ") in spec["title"]["text"]
        made = set(re.findall(r'"as": "(\w+)"', text)) | {
            part for part in re.findall(r'"as": \["(\w+)", "(\w+)"\]', text) for part in part
        }
        used = set(re.findall(r'"field": "(\w+)"', text)) | set(spec["data"]["format"]["parse"])
        assert used - made - {"rev"} <= set(path.read_text(encoding="utf-8").splitlines()[0].split(",")), name


def test_all_five_classes_are_drawn_once_for_each_revision(data: dict[str, Path]) -> None:
    texts = drawn(filled("figure1", data["figure1"], ("workspace", "HEAD")))
    for label in ("0 Negative", "1 Somewhat negative", "2 Neutral", "3 Somewhat positive", "4 Positive"):
        assert texts.count(label) == 3, "under both matrices, and beside them"
    assert {"workspace", "HEAD", "Predicted label", "True label", "–"} <= set(texts)


def test_train_and_dev_are_two_lines(data: dict[str, Path]) -> None:
    for name, lines in (("figure2", 2), ("run", 6)):
        svg = vl_convert.vegalite_to_svg(json.dumps(filled(name, data[name])), vl_version="5.20")
        assert svg.count('aria-roledescription="line mark"') == lines
        assert svg.count('aria-roledescription="area mark"') == (2 if name == "figure2" else 0), "its intervals"


def test_minus_signs_and_units_survive(data: dict[str, Path]) -> None:
    texts = drawn(filled("figure4", data["figure4"]))
    assert {"−1.0", "1.0", "True minus predicted similarity", "Predicted similarity (0 to 5)"} <= set(texts)
    assert "Trainable parameters (millions)" in drawn(filled("figure3", data["figure3"]))


def test_the_page_holds_its_code_and_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(offline, "drawing_code", lambda: "var vegaEmbed = 1; // é")
    offline.main()
    page = (
        HTML(offline.PAGE.read_text(encoding="utf-8"))
        .with_scripts(VegaRenderer.SCRIPTS)
        .with_element("<p>x</p>")
        .embed()
    )
    assert "html_template = plots.html" in Path(".dvc/config.local").read_text(encoding="utf-8")
    assert "var vegaEmbed = 1;" in page and "<p>x</p>" in page and '<meta charset="utf-8">' in page
    assert not re.search(r"<script[^>]+src|<link|https?://", page)


def test_the_page_is_made_in_the_project_s_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run in the project's root"):
        offline.main()


def test_the_drawing_code_is_one_script() -> None:
    code = offline.drawing_code()
    assert (
        "window.vegaEmbed" in code
        and "</script" not in code
        and not re.search(r"{(plot_divs|scripts|refresh_tag)}", code)
    )
