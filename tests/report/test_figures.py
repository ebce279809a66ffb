"""Figures 1 to 4: what is drawn, and equal results give equal bytes."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread

from mtbert.errors import MtbertError
from mtbert.evaluation.resampling import wilson
from mtbert.report.figures import FIGURES, figure1, figure2, figure3, figure4, read_caption, render, spread
from mtbert.report.statistics import Statistics
from tests.report.conftest import ROWS, edited


@pytest.mark.parametrize("name", FIGURES)
def test_three_files_with_equal_bytes_on_every_drawing_and_nothing_cut_off(
    name: str, results: Path, tmp_path: Path, statistics: Statistics
) -> None:
    for attempt, settings in (("a", {}), ("b", {"font.size": 17, "lines.linewidth": 9, "svg.hashsalt": "another"})):
        with matplotlib.rc_context(settings):  # the user's matplotlibrc has no effect
            render(FIGURES[name](results, ROWS[name], statistics), tmp_path / attempt / name)
    for ending in ("png", "svg", "csv"):
        first = (tmp_path / "a" / f"{name}.{ending}").read_bytes()
        assert len(first) > 30
        assert first == (tmp_path / "b" / f"{name}.{ending}").read_bytes()
    pixels = imread(tmp_path / f"a/{name}.png")[..., :3]
    sides = {"left": pixels[:, :3], "right": pixels[:, -3:], "top": pixels[:3], "bottom": pixels[-3:]}
    for side, edge in sides.items():
        assert (edge == 1).all(), f"ink at the {side} edge"


def test_figure1_data_have_all_classes(results: Path, statistics: Statistics) -> None:
    data = figure1(results, ROWS["figure1"], statistics).data
    assert len(data) == 25
    predicted_negative = data[data["predicted"] == "1 Somewhat negative"]
    assert predicted_negative["count"].tolist() == [1, 0, 0, 0, 0]
    assert data["share"].isna().tolist() == [False] * 5 + [True] * 5 + [False] * 5 + [True] * 5 + [False] * 5
    assert data["low"].isna().tolist() == data["high"].isna().tolist() == data["share"].isna().tolist()
    # Of two negative sentences one is taken for somewhat negative, both of two positive ones for positive.
    assert data.loc[[1, 24], ["share", "low", "high"]].to_numpy().tolist() == [[*wilson(1, 2)], [*wilson(2, 2)]]


def test_figure2_has_train_and_dev_with_intervals(results: Path, statistics: Statistics) -> None:
    path = results / "best_performance/metrics.json"
    with edited(path) as metrics:
        metrics["dev"]["sst"]["n"], metrics["training"]["sizes"]["sst"] = 1101, 200
    drawn = figure2(results, ROWS["figure2"], statistics)
    data = drawn.data
    assert list(data.columns) == ["model", "epoch", "train", "dev", "train_low", "train_high", "dev_low", "dev_high"]
    assert data["train"].tolist() == [0.2, 0.4, 0.6]
    assert data["dev"].tolist() == [0.25, 0.35, 0.45]
    assert data[["dev_low", "dev_high"]].to_numpy().tolist()[2] == [*wilson(225, 500)[1:]], "500 of 1,101 are watched"
    assert data[["train_low", "train_high"]].to_numpy().tolist()[2] == [*wilson(120, 200)[1:]], "there are only 200"
    axes = Canvas().subplots()
    drawn.panels[0][1](axes)
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    assert [(min(band), max(band)) for band in bands] == [
        (min(data[f"{part}_low"]), max(data[f"{part}_high"])) for part in ("train", "dev")
    ]
    with edited(path) as metrics:
        del metrics["training"]["sizes"]["sst"]
    data = figure2(results, ROWS["figure2"], statistics).data
    assert data[["train_low", "train_high"]].to_numpy().tolist()[2] == [*wilson(300, 500)[1:]], "not trained on"
    (results / "best_performance/history.csv").write_text("epoch\n0\n")
    with pytest.raises(MtbertError, match="no train_sst and no dev_sst in it"):
        figure2(results, ROWS["figure2"], statistics)


def test_numbers_stay_numbers_in_the_data(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    drawn = figure4(results, ROWS["figure4"], statistics)
    render(drawn._replace(data=drawn.data.assign(residual=[-0.5, -1e-7, 3.0, float("nan")])), tmp_path / "figure4")
    lines = (tmp_path / "figure4.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["residual", "-0.5", "-1e-07", "3", ""]


def test_several_rows_are_panels(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    for name in ("figure1", "figure2", "figure4"):
        one = FIGURES[name](results, ROWS[name], statistics)
        two = FIGURES[name](results, {"best_performance": "best_performance", "mine": "best_performance"}, statistics)
        assert len(two.data) == 2 * len(one.data)
        assert set(two.data["model"]) == {"Best Performance", "mine"}
        assert name == "figure1" or " mine: " in two.caption
        render(two, tmp_path / name)


def test_the_caption_is_read_back_from_the_picture(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    drawn = figure1(results, ROWS["figure1"], statistics)
    render(drawn, tmp_path / "figure1")
    assert read_caption(tmp_path / "figure1.svg") == drawn.caption
    for content in ("<svg/>", "<svg", ""):
        (tmp_path / "figure1.svg").write_text(content)
        with pytest.raises(MtbertError, match="run `dvc repro --force --single-item figure@figure1`"):
            read_caption(tmp_path / "figure1.svg")


def test_figure3_has_ranks_then_the_full_model(results: Path, statistics: Statistics) -> None:
    data = figure3(results, ROWS["figure3"], statistics).data
    assert data["model"].tolist() == ["r = 4", "r = 8", "r = 16", "r = 32", "full"]
    assert data["trainable_parameters"].iloc[-1] == 1000
    assert pd.isna(data["adapters_only"].iloc[-1])


def test_figure4_residual_is_true_minus_predicted(results: Path, statistics: Statistics) -> None:
    assert figure4(results, ROWS["figure4"], statistics).data["residual"].tolist() == [-0.5, 1.0, 0.0, -1.0]


def test_captions_say_what_is_seen_here_and_what_the_paper_says(results: Path, statistics: Statistics) -> None:
    captions = {name: make(results, ROWS[name], statistics).caption for name, make in FIGURES.items()}
    ends = "0% (0% to 79%) are taken for 1 and 100% (21% to 100%) for 3 (paper: 24% and 32%)"
    assert ends in captions["figure1"]
    assert "Dev is highest after epoch 2 of 2 (paper: it converges at around epoch 4 to 6 of 10)" in captions["figure2"]
    assert "% more parameters than rank 16 and scores " in captions["figure3"]
    assert "−0.75 where the true similarity is below 2.5 and +0.50 elsewhere" in captions["figure4"]


def test_an_undefined_score_is_left_out_of_figure_3(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    with edited(results / "dora_r16/metrics.json") as metrics:
        del metrics["dev"]["overall"]
    drawn = figure3(results, ROWS["figure3"], statistics)
    render(drawn, tmp_path / "figure3")
    assert "rank 16" not in drawn.caption
    assert pd.isna(pd.read_csv(tmp_path / "figure3.csv")["overall"][2])


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


def test_what_the_paper_prints_is_drawn_in(results: Path, statistics: Statistics) -> None:
    def texts(name: str, of: dict[str, str]) -> set[str]:
        axes = Canvas().subplots()
        FIGURES[name](results, of, statistics).panels[0][1](axes)
        legend = axes.get_legend()
        return {text.get_text() for text in [*axes.texts, *(legend.get_texts() if legend else [])]}

    assert {"paper: 24%", "paper: 32%", "21–100%"} <= texts("figure1", ROWS["figure1"])
    assert "paper, dev after training" in texts("figure2", ROWS["figure2"])
    assert {"paper, r = 16", "paper, full"} <= texts("figure3", ROWS["figure3"])
    another = {"mine": "best_performance"}
    assert not [text for name in ("figure1", "figure2", "figure3") for text in texts(name, another) if "paper" in text]
