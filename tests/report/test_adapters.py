"""The table and figure of the study of adapters, from results whose scores are planted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.report.adapters import chosen, figure, table
from mtbert.report.figures import render
from mtbert.report.statistics import Interval, OverSeeds, Paired, Statistics
from mtbert.report.text import to_csv, to_latex, to_markdown
from mtbert.tabular import write_csv
from tests.report.conftest import write_run

# Run: adapter, whether the rest trains, rate, held-out and dev score, parameters.
RUNS: dict[str, tuple[str | None, bool, float, float | None, float, int]] = {
    "full": (None, False, 1e-5, 0.6, 0.80, 1000),
    "low": ("lora of rank 4", False, 1e-4, 0.5, 0.79, 40),
    "middle": ("lora of rank 4", False, 3e-4, 0.7, 0.70, 40),
    "high": ("lora of rank 4", False, 1e-3, 0.6, 0.78, 40),
    "rest": ("lora of rank 4", True, 3e-4, 0.4, 0.75, 240),
    "bias": ("bitfit", False, 1e-3, 0.5, 0.72, 20),
}
ROWS = {f"Row {run}": run for run in RUNS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run, (adapter, rest, rate, held_out, overall, size) in RUNS.items():
        made = tmp_path / "results" / run
        dev: dict[str, Any] = {task: {"accuracy": overall, "n": 9, "majority": 0.3} for task in ("sst", "quora")}
        dev |= {"sts": {"pearson": overall, "n": 9}, "overall": overall}
        section = adapter and {"method": adapter.split()[0], "train_rest": rest, "learning_rate": rate}
        found = {"dev": dev, "parameters": {"trainable": size}, "training": {"adapter": adapter}}
        write_run(made, {"learning_rate": rate, "adapter": section}, **found, checkpoint_bytes=4 * size)
        write_csv(made / "history.csv", ["epoch", "held_out"], [(0, 0.1), (1, held_out), (2, 0.2)])
    return tmp_path / "results"


@pytest.fixture
def statistics() -> Statistics:
    """Intervals of ± 0.02; only bitfit differs significantly from full fine-tuning."""
    metrics = ("overall", "sst", "quora", "sts")
    values = {
        run: {metric: Interval(one[4], one[4] - 0.02, one[4] + 0.02) for metric in metrics} for run, one in RUNS.items()
    }
    pairs = {
        ("full", run): {
            "overall": Paired(one[4] - 0.8, one[4] - 0.81, one[4] - 0.79, 0.01 if run == "bias" else 0.03, 0.01)
        }
        for run, one in RUNS.items()
    }
    return Statistics(values, pairs)


def test_the_rate_is_chosen_by_the_held_out_score(folder: Path) -> None:
    found = {one.title: one for one in chosen(folder, ROWS, "tables.adapters")}
    assert list(found) == ["full fine-tuning", "lora of rank 4", "lora of rank 4, and the rest", "bitfit"]
    lora = found["lora of rank 4"]
    assert (lora.run, lora.rate, lora.held_out, lora.rates) == ("middle", 3e-4, 0.7, 3), "though its dev score is lower"


def test_a_choice_without_held_out_scores_is_refused(folder: Path) -> None:
    (folder / "high/history.csv").write_text("epoch\n0\n")
    with pytest.raises(
        MtbertError, match=r"tables\.adapters: low, middle, high are of .* which high lack; set optimization\.hold_out"
    ):
        chosen(folder, ROWS, "tables.adapters")
    assert len(chosen(folder, {"a": "high"}, "")) == 1


def test_the_table(folder: Path, statistics: Statistics) -> None:
    found = table(folder, ROWS, statistics)
    assert found.rows[0][:4] == ("full fine-tuning", "1.0e-05", "0.600", "0.800 ± 0.020")
    assert found.rows[0][7:10] == ("–", "–", "–")
    # Holm over three differences: the smallest p three times, the others at least as large.
    assert [row[8] for row in found.rows[1:]] == ["0.060", "0.060", "0.030"]
    assert found.rows[1][7] == "-0.100 ± 0.010" and found.rows[1][9:] == ("0.028", "40", "0.00")
    over = {"middle": {"overall": OverSeeds(2, 0.71, 0.01, 0.5)}, "low": {"overall": OverSeeds(2, 0.8, 0.01, 0.5)}}
    told = [note for note in table(folder, ROWS, replace(statistics, seeds=over)).notes if "seeds, on average" in note]
    assert len(told) == 1 and told[0].startswith("lora of rank 4 over 2 seeds, on average: Overall 0.710 with"), (
        "of the chosen rates alone"
    )
    assert (0, 3) in found.bold and len([one for one in found.bold if one[1] == 3]) == 1
    for text in (to_csv(found), to_markdown(found), to_latex(found)):
        assert text.count("lora of rank 4") == 2


def test_the_figure(folder: Path, statistics: Statistics, tmp_path: Path) -> None:
    drawn = figure(folder, ROWS, statistics)
    assert drawn.data["trainable_parameters"].tolist() == [1000, 40, 240, 20]
    assert drawn.data["checkpoint_bytes"].tolist() == [4000, 160, 960, 80]
    render(drawn, tmp_path / "adapters")
    assert all((tmp_path / f"adapters.{ending}").stat().st_size for ending in ("png", "svg", "csv"))
