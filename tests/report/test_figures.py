"""Figures 1 to 4: what is drawn, and equal results give equal bytes."""

from pathlib import Path

import pandas as pd
import pytest

from mtbert.errors import MtbertError
from mtbert.report.figures import FIGURES, figure1, figure2, figure3, figure4, render


@pytest.mark.parametrize("name", FIGURES)
def test_three_files_with_equal_bytes_on_every_drawing(name: str, results: Path, tmp_path: Path) -> None:
    for attempt in ("a", "b"):
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
