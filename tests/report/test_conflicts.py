"""The figure of the conflicts between the tasks' gradients."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mtbert.report.conflicts import WHOLE, drawn
from mtbert.report.figures import render


@pytest.fixture
def table() -> pd.DataFrame:
    """Two layers and two pairs of tasks, measured twice; one gradient is zero."""
    cosines = {
        ("sst", "quora"): [(0, "1", 0.2), (0, "2", -0.2), (0, WHOLE, -0.9), (5, "1", -0.1), (5, "2", -0.3)],
        ("quora", "sts"): [(0, "1", 0.4), (0, "2", 0.5), (0, WHOLE, -0.9), (5, "1", np.nan), (5, "2", 0.1)],
    }
    rows = [(step, layer, *pair, cosine) for pair, found in cosines.items() for step, layer, cosine in found]
    return pd.DataFrame(rows, columns=["step", "layer", "first", "second", "cosine"])


def test_the_share_in_conflict_has_a_panel_of_its_own(table: pd.DataFrame) -> None:
    figure = drawn({"Joint": table})
    assert [title for title, _ in figure.panels] == ["sst and quora", "quora and sts", "layers in conflict"]
    assert "these conflict: 43% in Joint" in figure.caption, "3 of 7: not the whole encoder, not the gradient of zero"
    lines = []
    for _, draw in figure.panels:
        axes = plt.figure().subplots()
        draw(axes)
        lines.append({str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()[1:]})
        plt.close(axes.figure)  # type: ignore[arg-type]
    assert lines[0] == {"layer 1": [0.2, -0.1], "layer 2": [-0.2, -0.3]}
    assert lines[2] == {"sst and quora": [0.5, 1.0], "quora and sts": [0.0, 0.0]}


def test_rows_have_panels_of_their_own(table: pd.DataFrame, tmp_path: Path) -> None:
    figure = drawn({"Joint": table, "PCGrad": table})
    titles = [title for title, _ in figure.panels]
    assert len(titles) == 6 and titles[2] == "Joint: layers in conflict" and titles[3] == "PCGrad: sst and quora"
    assert len(figure.data) == 2 * len(table)
    render(figure, tmp_path / "conflicts")
    assert all((tmp_path / f"conflicts.{ending}").stat().st_size for ending in ("png", "svg", "csv"))
