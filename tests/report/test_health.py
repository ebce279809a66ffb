"""The data's health on the page."""

from copy import deepcopy

from mtbert.report.grid import Cell
from mtbert.report.health import LISTED, health_grid, malformed
from mtbert.tasks.paper import TASKS
from tests.report.pages import PREPARED


def test_a_row_for_each_split_with_shares_of_labels_by_name() -> None:
    columns = {column.name: column.cells for column in health_grid(PREPARED, TASKS).columns}
    assert [cell.text for cell in columns["Split"]] == ["sst, train", "sst, test"]
    assert [cell.text for cell in columns["Malformed"]] == ["1", "–"], "there is no test file"
    assert columns["Labels"][0].shares[2:4] == [("neutral", 0.5), ("somewhat positive", 0.0)]
    assert (columns["Also in dev or test"][0].text, columns["Also in dev or test"][0].below) == ("1", "kept")


def test_scores_and_unlabelled_splits() -> None:
    split = PREPARED["tasks"]["sst"]["train"]
    report = PREPARED | {
        "tasks": {"sts": {"dev": split | {"labels": {"0": 1, "4": 3}}, "test": split | {"labels": None}}}
    }
    report["tasks"]["sts"]["dev"]["leaked"] = {"rows": 0, "removed": 0}
    columns = health_grid(report, TASKS).columns
    labels = columns[-1].cells
    assert next(column for column in columns if column.name == "Also in dev or test").cells[0] == Cell("0"), (
        "none to keep"
    )
    assert [cell.shares for cell in labels] == [[("0", 0.25), ("4", 0.75)], []]


def test_the_first_malformed_rows_are_listed() -> None:
    report = deepcopy(PREPARED)
    report["tasks"]["sst"]["train"]["bad_rows"]["listed"] *= 30
    assert malformed(report) == ["data/raw/sst-train.csv:2:1: <b>bad</b> `c` *d*"] * LISTED


def test_a_task_that_is_no_longer_declared_has_no_rows() -> None:
    splits = PREPARED["tasks"]["sst"]
    report = PREPARED | {"tasks": {"sst": splits, "removed": splits}}
    assert health_grid(report, TASKS) == health_grid(PREPARED | {"tasks": {"sst": splits}}, TASKS)
