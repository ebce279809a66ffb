"""The tables of a study, and the figures of the study of samplers, from results whose scores are planted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.report.figures import Figure, render
from mtbert.report.samplers import FIGURES, sampler_amount, sampler_curves, sampler_exponent
from mtbert.report.statistics import Interval, OverSeeds, Paired, Statistics
from mtbert.report.studies import TABLES, pairs, scores, training
from mtbert.report.text import to_csv, to_latex, to_markdown
from mtbert.tabular import write_csv
from tests.report.conftest import write_run

# Run: sampler, its exponent, how its epochs end, tokens in all, overall score.
RUNS: dict[str, tuple[str | float, float | None, Any, int, float]] = {
    "sequential": ("sequential", None, "depletion", 12_000, 0.60),
    "proportional_paper": ("proportional", 1.0, "depletion", 11_000, 0.62),
    "proportional_steps": ("proportional", 1.0, "one_pass", 12_500, 0.64),
    "proportional_tokens": ("proportional", 1.0, {"tokens": "one_pass"}, 12_010, 0.63),
    "low_paper": (0.25, 0.25, "depletion", 6_000, 0.50),
    "low_steps": (0.25, 0.25, 40, 11_500, 0.66),
    "low_tokens": (0.25, 0.25, {"tokens": 12_000}, 12_020, 0.65),
    "annealed_tokens": ("annealed", None, {"tokens": "one_pass"}, 12_030, 0.67),
}
ROWS = {f"Row {run}": run for run in RUNS}
TASKS = ("sst", "quora", "sts")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for run, (sampler, exponent, end, tokens, overall) in RUNS.items():
        folder = tmp_path / "results" / run
        dev: dict[str, Any] = {task: {"accuracy": overall + 0.1, "n": 9, "majority": 0.3} for task in ("sst", "quora")}
        training = {
            **{"tasks": list(TASKS), "steps": tokens // 100, "tokens": tokens, "exponent": exponent, "batch_size": 8},
            "tokens_of_tasks": {"sst": tokens // 10, "quora": tokens // 2, "sts": tokens - tokens // 10 - tokens // 2},
            "sizes": {"sst": 20, "quora": 80, "sts": 33},
            "batches": {"sst": 6, "quora": 5, "sts": 20},
        }
        dev |= {"sts": {"pearson": overall - 0.2, "n": 9}, "overall": overall}
        write_run(folder, {"sampler": sampler, "epoch_end": end}, dev=dev, training=training)
        header = ["epoch", "step", "tokens", "dev_sst", "dev_quora", "dev_sts", "dev_overall"]
        lines = [(n, n * 9, n * tokens // 2, 0.3 + n / 10, 0.5, None, overall - 0.1 + n / 20) for n in range(3)]
        write_csv(folder / "history.csv", header, lines)
    return tmp_path / "results"


@pytest.fixture
def found(study: Path) -> Statistics:
    """Intervals of ± 0.02; the difference of two runs is significant if they have different samplers."""
    dev = {"sst": 0.1, "quora": 0.1, "sts": -0.2, "overall": 0.0}
    values = {
        run: {
            metric: Interval(one[4] + more, one[4] + more - 0.02, one[4] + more + 0.02) for metric, more in dev.items()
        }
        for run, one in RUNS.items()
    }
    differences = {
        (first, second): {
            metric: Paired(gap, gap - 0.01, gap + 0.03, 0.9 if RUNS[first][0] == RUNS[second][0] else 1e-5, 0.01)
            for metric in dev
            for gap in [values[second][metric].value - values[first][metric].value]
        }
        for first, second in combinations(RUNS, 2)
    }
    return Statistics(values, differences)


def test_scores_tell_what_each_run_was_trained_on(study: Path, found: Statistics) -> None:
    table = scores(study, ROWS, found)
    assert table.rows[0] == (
        *("Row sequential", "0.600 ± 0.020", "0.700 ± 0.020", "0.700 ± 0.020", "0.400 ± 0.020"),
        *("120", "12,000", "1,200 / 6,000 / 4,800", "2.00 / 0.50 / 4.00"),
    )
    assert [place for place in table.bold if place[1] == 1] == [(len(RUNS) - 1, 1)], "the highest overall score"
    assert "are of sst, quora, sts" in table.notes[0]


def test_scores_tell_which_differences_would_show(study: Path, found: Statistics) -> None:
    notes = " ".join(scores(study, ROWS, found).notes)
    assert "would show with a probability of 80%, depending on the pair: Overall 0.028, Sentiment 0.028" in notes
    # Of 28 pairs, six have the same sampler: three runs are proportional, three of exponent 0.25.
    assert "Overall 22 of 28; Sentiment 22 of 28; " in notes


def test_scores_and_pairs_have_the_spread_over_seeds_where_there_are_several(study: Path, found: Statistics) -> None:
    assert "SD over seeds: Overall" not in scores(study, ROWS, found).header
    over = {"overall": OverSeeds(5, 0.61, 0.0123, 0.4), "sst": OverSeeds(1, None, None, None)}
    seeded = replace(found, seeds={"low_paper": over})
    table = scores(study, ROWS, seeded)
    start = table.header.index("SD over seeds: Overall")
    deviations = {row[0]: row[start : start + 4] for row in table.rows}
    assert deviations.pop("Row low_paper") == ("0.012", "–", "–", "–")
    assert set(deviations.values()) == {("–",) * 4}
    assert "SD over seeds: Overall" in to_csv(table).splitlines()[0] and ",0.012," in to_csv(table)
    told = r"Row low\_paper over 5 seeds, on average: Overall 0.610 with standard deviation 0.012 (40%)"
    for shown in (table, pairs(study, ROWS, seeded)):
        assert told in to_markdown(shown) and told.replace("%", r"\%") in to_latex(shown)


def test_training_tells_seconds_and_machine_where_there_is_a_log(study: Path) -> None:
    table = training(
        study, {"low_paper": "Low", "low_steps": "low_steps"}, {"low_paper": {"seconds": 1234.5, "machine": "M"}}
    )
    assert table.rows == [
        ("Low", "60", "6,000", "1,234", "cpu", "M"),
        ("low_steps", "115", "11,500", "–", "cpu", "–"),
    ]
    for text in (to_csv(table), to_markdown(table), to_latex(table)):
        assert "Low" in text and "1,234" in text


def test_pairs_are_corrected_and_show_which_is_higher(study: Path, found: Statistics) -> None:
    compared = {row: run for row, run in ROWS.items() if run.endswith("_tokens")}
    table = pairs(study, compared, found)
    assert [row[:5] for row in table.rows] == [
        ("Row proportional_tokens", "Row low_tokens", "0.020 ± 0.020", "< 0.001", "0.028"),
        ("Row proportional_tokens", "Row annealed_tokens", "0.040 ± 0.020", "< 0.001", "0.028"),
        ("Row low_tokens", "Row annealed_tokens", "0.020 ± 0.020", "< 0.001", "0.028"),
    ]
    assert set(table.bold) == {(row, column) for row in range(3) for column in (2, 5, 8, 11)}
    alike = pairs(study, {"a": "low_paper", "b": "low_steps", "c": "sequential"}, found)
    assert alike.rows[0][3] == "0.900" and {row for row, _ in alike.bold} == {1, 2}


@pytest.mark.parametrize("name", TABLES)
def test_every_format_has_the_table(name: str, study: Path, found: Statistics) -> None:
    table = TABLES[name](study, ROWS, found)
    count = len(table.rows)
    assert len(to_csv(table).splitlines()) == 1 + count
    assert to_markdown(table).count("\n| Row") == count and r"\begin{table}" in to_latex(table)


def test_scores_against_the_exponent_are_at_equal_training_alone(study: Path, found: Statistics) -> None:
    data = sampler_exponent(study, ROWS, found).data
    overall = data[data["metric"] == "overall"]
    assert overall[["exponent", "rule", "value"]].to_numpy().tolist() == [
        [0.25, "equal steps", 0.66],
        [1.0, "equal steps", 0.64],
        [0.25, "equal tokens", 0.65],
        [1.0, "equal tokens", 0.63],
    ]
    assert len(data) == 4 * len(overall)


def test_curves_are_of_the_runs_at_equal_tokens(study: Path, found: Statistics) -> None:
    data = sampler_curves(study, ROWS, found).data
    assert list(dict.fromkeys(data["sampler"])) == ["Sequential", "α = 1", "α = 0.25", "Annealed"]
    assert data[data["sampler"] == "α = 1"]["tokens"].tolist() == [0, 6005, 12_010]
    shutil.copytree(study / "low_tokens", study / "another_seed")
    lines = {"a": "low_tokens", "b": "another_seed"}
    path = study / "another_seed/history.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("0.", "0.0"), encoding="utf-8")
    assert len(sampler_curves(study, lines, found).data.drop_duplicates()) == 6, (
        "two runs of one sampler keep their own curves"
    )


def test_a_figure_without_a_run_to_show_says_which_to_add(study: Path, found: Statistics) -> None:
    with pytest.raises(
        MtbertError, match=r"figures.sampler_curves names no run of the kind equal tokens; .*tokens: one_pass"
    ):
        sampler_curves(study, {"a": "low_paper"}, found)


def test_amount_and_sampling_are_told_apart(study: Path, found: Statistics) -> None:
    figure = sampler_amount(study, ROWS, found)
    at = {rule: set(part["sampler"]) for rule, part in figure.data.groupby("rule")}
    assert at["paper's rule"] == at["equal steps"] == {"Sequential", "α = 1", "α = 0.25"}
    assert at["equal tokens"] == at["paper's rule"] | {"Annealed"}, "sequential is the same run by every rule"
    assert "trains on 6,000 to 12,000 tokens" in figure.caption
    assert "0.120 by the paper's rule, 0.060 at equal steps, 0.070 at equal tokens" in figure.caption


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(name: str, study: Path, found: Statistics, tmp_path: Path) -> None:
    draw: Callable[..., Figure] = FIGURES[name]
    render(draw(study, ROWS, found), tmp_path / name)
    assert all((tmp_path / f"{name}.{ending}").stat().st_size for ending in ("png", "svg", "csv"))
