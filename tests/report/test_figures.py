"""Figures 1 to 4: what is drawn, and equal results give equal bytes."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from mtbert.errors import MtbertError
from mtbert.report.figures import FIGURES, figure1, figure2, figure3, figure4, render, spread


@pytest.mark.parametrize("name", FIGURES)
def test_three_files_with_equal_bytes_on_every_drawing(name: str, results: Path, tmp_path: Path) -> None:
    for attempt, settings in (("a", {}), ("b", {"font.size": 17, "lines.linewidth": 9, "svg.hashsalt": "another"})):
        with matplotlib.rc_context(settings):  # a reader's own matplotlibrc changes nothing
            render(FIGURES[name](results), tmp_path / attempt / name)
    for ending in ("png", "svg", "csv"):
        first = (tmp_path / "a" / f"{name}.{ending}").read_bytes()
        assert len(first) > 30
        assert first == (tmp_path / "b" / f"{name}.{ending}").read_bytes()


def test_figure1_data_suits_the_confusion_template(results: Path) -> None:
    assert figure1(results).data.to_dict("list") == {"actual": [0, 0, 4, 4, 2], "predicted": [0, 1, 4, 4, 3]}


def test_figure2_is_long_by_split(results: Path) -> None:
    data = figure2(results).data
    assert list(data.columns) == ["epoch", "split", "accuracy"]
    assert data[data["split"] == "dev"]["accuracy"].tolist() == [0.25, 0.35, 0.45]


def test_figure3_has_ranks_then_the_full_model(results: Path) -> None:
    data = figure3(results).data
    assert data["model"].tolist() == ["r = 4", "r = 8", "r = 16", "r = 32", "full"]
    assert data["trainable_parameters"].iloc[-1] == 1000
    assert pd.isna(data["adapters_only"].iloc[-1])


def test_figure4_residual_is_true_minus_predicted(results: Path) -> None:
    assert figure4(results).data["residual"].tolist() == [-0.5, 1.0, 0.0, -1.0]


@pytest.mark.parametrize("name", FIGURES)
def test_missing_results_name_the_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match="run `dvc repro evaluate@"):
        FIGURES[name](tmp_path)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(name: str, results: Path, tmp_path: Path) -> None:
    render(FIGURES[name](results), tmp_path / name)
    pixels = imread(tmp_path / f"{name}.png")[..., :3]
    for side, edge in {
        "left": pixels[:, :3],
        "right": pixels[:, -3:],
        "top": pixels[:3],
        "bottom": pixels[-3:],
    }.items():
        assert (edge == 1).all(), f"ink at the {side} edge"


def test_captions_say_what_is_seen_here_and_what_the_paper_says(results: Path) -> None:
    captions = {name: make(results).caption for name, make in FIGURES.items()}
    assert "0% are taken for 1 and 100% for 3 (paper: 24% and 32%)" in captions["figure1"]
    assert "Dev is highest after epoch 2 of 2 (paper: it converges at around epoch 4 to 6 of 10)" in captions["figure2"]
    assert "% more parameters than rank 16 and scores " in captions["figure3"]
    assert "−0.75 where the true similarity is below 2.5 and +0.50 elsewhere" in captions["figure4"]


def test_an_undefined_score_is_left_out_of_figure_3(results: Path, tmp_path: Path) -> None:
    path = results / "dora_r16/metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text())
    del metrics["dev"]["overall"]
    path.write_text(json.dumps(metrics))
    drawn = figure3(results)
    render(drawn, tmp_path / "figure3")
    assert "rank 16" not in drawn.caption
    assert pd.isna(pd.read_csv(tmp_path / "figure3.csv")["overall"][2])


@pytest.mark.parametrize(
    "content", ["", "id,label\n1,2\n", "id,sentence1,sentence2,label,prediction,score\na,s,t,,1,1\n"]
)
@pytest.mark.parametrize(
    ("name", "file"),
    [("figure2", "history.csv"), ("figure4", "examples/sts-dev.csv"), ("figure1", "examples/sst-dev.csv")],
)
def test_damaged_or_unlabelled_results_are_one_error(results: Path, name: str, file: str, content: str) -> None:
    (results / "best_performance" / file).write_text(content)
    with pytest.raises(MtbertError, match="run `dvc repro evaluate@best_performance`"):
        FIGURES[name](results)


@pytest.mark.parametrize(
    ("values", "moved"),
    [
        ([], []),
        ([0.0, 5.0], [0.0, 5.0]),
        ([2.0, 2.0], [1.5, 2.5]),
        ([5.0, 0.0, 0.5], [5.0, -0.25, 0.75]),
        ([1.0, 1.5, 2.0, 9.0], [0.5, 1.5, 2.5, 9.0]),
        ([0.0, 0.0, 1.2], [-0.6, 0.4, 1.4]),
    ],
)
def test_labels_move_apart_in_order(values: list[float], moved: list[float]) -> None:
    np.testing.assert_allclose(spread(np.array(values), 1.0), moved, atol=1e-12)
