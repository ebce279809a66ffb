"""Tables 1 to 4: exact contents from known results."""

import json
import shutil
from pathlib import Path

import pytest

from mtbert.report import paper
from mtbert.report.statistics import Statistics
from mtbert.report.tables import TABLES, highest, table1, table2, table3, table4
from mtbert.report.text import Table
from tests.report.conftest import HOSTILE, ROWS, edited


def test_table1_has_ours_then_the_papers_printed_and_recomputed(results: Path, statistics: Statistics) -> None:
    table = table1(results, ROWS["table1"], statistics)
    assert [row[0] for row in table.rows] == [row[0] for row in paper.TABLE_1.values()] + ["Majority class"]
    best = json.loads((results / "best_performance/metrics.json").read_text())["dev"]
    expected = [
        f"{value:.3f} ± 0.020" for value in (best["overall"], best["sst"]["accuracy"], best["quora"]["accuracy"])
    ]
    row = table.rows[4]
    assert list(row[1:4]) == expected
    assert row[5:] == ("0.779", "0.779", "0.524", "0.874", "0.877")
    assert table.rows[0][5:7] == ("0.494", "0.499"), "the baseline's printed overall is not what its parts give"
    assert table.rows[2][5:7] == ("0.681", "0.684")


def test_table1_says_where_the_test_split_is_unlabelled(results: Path, statistics: Statistics) -> None:
    def made() -> Table:
        return table1(results, ROWS["table1"], statistics)

    assert made().rows[6][:5] == ("Test Leaderboard", "unlabelled", "–", "–", "–")
    assert any(note.startswith("Unlabelled") for note in made().notes)
    path = results / "best_performance/metrics.json"
    with edited(path) as metrics:
        metrics["test"] = metrics["dev"]
    on_test, on_dev = (made().rows[row][1:5] for row in (6, 4))
    assert on_test == tuple(cell.partition(" ±")[0] for cell in on_dev), "intervals are of dev scores"
    assert not any(note.startswith("Unlabelled") for note in made().notes)
    with edited(path) as metrics:
        metrics["test"] = {"sst": {"accuracy": 0.25, "n": 4, "majority": 0.2}}
    assert made().rows[6][1:5] == ("unlabelled", "0.250", "–", "–"), "a part of the tasks has no overall score"
    with edited(path) as metrics:
        del metrics["dev"]["overall"]
        metrics["dev"]["sts"]["pearson"] = None
        metrics["test"] = metrics["dev"]
    assert made().rows[6][1] == made().rows[4][1] == "–", "undefined is not unlabelled"


def test_notes_count_the_pairs_that_differ_significantly(results: Path, statistics: Statistics) -> None:
    """Runs whose indices in the fixture are four or more apart differ by more than 0.03; 0.0001 survives Holm's correction."""
    notes = " ".join(table2(results, ROWS["table2"], statistics).notes)
    assert "±: half the width of the 95% interval" in notes and "(percentiles of 10,000 resamples)" in notes
    assert (
        "differ significantly on the same examples: STS " in notes
        and " of 6" in notes
        and "Tested at 5%, by bootstrap, " in notes
    )
    assert "with a probability of 80%, depending on the pair: STS 0.014 (at 5%" in notes
    of_table1 = " ".join(table1(results, ROWS["table1"], statistics).notes)
    assert all(f"{column} " in of_table1 for column in ("Overall", "Sentiment", "Paraphrase", "STS"))
    assert "McNemar's exact test for accuracies, else by bootstrap" in of_table1
    alone = " ".join(table3(results, {"mine": "dora_r4"}, statistics).notes)
    assert "±" in alone and "significantly" not in alone and "probability of" not in alone


def test_table1_majority_line(results: Path, statistics: Statistics) -> None:
    row = table1(results, ROWS["table1"], statistics).rows[-1]
    assert row[:5] == ("Majority class", "0.500", "0.400", "0.600", "0.000")


def test_an_undefined_correlation_is_a_dash(results: Path, statistics: Statistics) -> None:
    with edited(results / "concat_u_v/metrics.json") as metrics:
        metrics["dev"]["sts"]["pearson"] = None
        del metrics["dev"]["overall"]
    assert table2(results, ROWS["table2"], statistics).rows[0] == ("(u, v)", "concat_u_v", "–", "0.530")


def test_table3_tells_probabilities_steps_and_draws(results: Path, statistics: Statistics) -> None:
    found = table3(results, ROWS["table3"], statistics).rows
    assert [row[0] for row in found] == ["Sequential", "Round Robin", "Proportional", "Square Root", "Balanced"]
    assert found[0][1:4] == ("–", "1,234", "400 / 500 / 334")
    assert found[3][1] == "[0.13, 0.76, 0.11]" == found[3][5]


def test_table4_takes_the_most_confident_of_each_kind(results: Path, statistics: Statistics) -> None:
    table = table4(results, ROWS["table4"], statistics)
    assert [row[0] for row in table.rows] == ["FP", "FN", "FP"]
    assert [row[1] for row in table.rows] == HOSTILE[:3]
    assert [row[3] for row in table.rows] == ["0.99", "0.99", "0.99"]
    assert table.notes[0].startswith("Best Performance: 13 false positives")


def test_table4_says_when_there_are_no_such_mistakes(results: Path, statistics: Statistics) -> None:
    path = results / "best_performance/examples/quora-dev.csv"
    path.write_text("id,sentence1,sentence2,label,prediction,score\na,x,y,1,1,0.9\n")
    assert [row[1] for row in table4(results, ROWS["table4"], statistics).rows] == [
        f"no further {kind} on the development set" for kind in ("FP", "FN", "FP")
    ]


@pytest.mark.parametrize("name", TABLES)
def test_column_names_are_unique(name: str, results: Path, statistics: Statistics) -> None:
    table = TABLES[name](results, ROWS[name], statistics)
    assert len(set(table.header)) == len(table.header) == len(table.numeric)
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_the_highest_of_each_column_is_bold(results: Path, statistics: Statistics) -> None:
    table = table1(results, ROWS["table1"], statistics)
    bold = {(table.rows[row][0], table.header[column]): table.rows[row][column] for row, column in table.bold}
    ours = [float(row[1].partition(" ")[0]) for row in table.rows[:6]]
    assert bold[table.rows[ours.index(max(ours))][0], "Overall"] == f"{max(ours):.3f} ± 0.020"
    assert bold["Best Performance", "Paper: overall"] == "0.779", "the test set's row is not compared"
    assert {model for model, _ in bold} <= {row[0] for row in table.rows[:6]}
    assert highest([("0.5",), ("–",), ("0.5",), ("-1",)], [0]) == [(0, 0), (2, 0)]


def test_rows_that_the_paper_lacks_and_fewer_rows(results: Path, statistics: Statistics) -> None:
    row = table1(results, {"mine": "dora_r4"}, statistics).rows[0]
    assert (row[0], row[5:]) == ("mine", ("–",) * 5)
    assert table2(results, {"mine": "dora_r4"}, statistics).rows[0][::3] == ("mine", "–")
    assert table3(results, {"mine": "dora_r4"}, statistics).rows[0][5:] == ("–", "–")
    shutil.copytree(results / "best_performance/examples", results / "dora_r4/examples")
    found = table4(results, {"best_performance": "best_performance", "mine": "dora_r4"}, statistics)
    assert [cells[0] for cells in found.rows[2:4]] == ["Best Performance: FP", "mine: FP"]
    assert found.rows[2][4] != "–" == found.rows[3][4]
