"""steps.csv and history.csv are the same whether or not a run was interrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.training.log import LearningCurve, Step, StepLog, log_checksum, log_line, write_history

STEPS = [Step(step, 6, 1 + step // 4, "sst", 1 / step, 10 * step) for step in range(1, 7)]
ROWS = [
    {"epoch": 0, "step": 0, "train_loss": None, "dev_sst": 0.25},
    {"epoch": 1, "step": 3, "train_loss": 0.5, "dev_sst": None},
    {"epoch": 2, "step": 6, "train_loss": 0.1 + 0.2, "dev_sst": 1.0},
]


def write(path: Path, done: int, upto: int) -> None:
    log = StepLog(path, done)
    for step in STEPS[done:upto]:
        log.step(step)
    log.close()


def test_a_line_per_step(tmp_path: Path) -> None:
    write(tmp_path / "new" / "steps.csv", 0, 2)
    text = (tmp_path / "new" / "steps.csv").read_bytes()
    assert text == b"step,epoch,task,loss,tokens\n1,1,sst,1.0,10\n2,1,sst,0.5,20\n"


@pytest.mark.parametrize("done", range(5))
@pytest.mark.parametrize("torn", ["", "5,2,ss"])
def test_interrupted_anywhere_the_file_is_the_same(tmp_path: Path, done: int, torn: str) -> None:
    write(tmp_path / "whole.csv", 0, 6)
    path = tmp_path / "steps.csv"
    write(path, 0, 4)
    with path.open("a", encoding="utf-8") as file:
        file.write(torn)  # a kill inside a write
    write(path, done, 6)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_line_is_flushed_when_step_returns(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "steps.csv", 0)
    log.step(STEPS[0])
    assert (tmp_path / "steps.csv").read_text(encoding="utf-8").count("\n") == 2
    log.close()


@pytest.mark.parametrize("present", [None, 2])
def test_a_file_behind_its_checkpoint_is_refused(tmp_path: Path, present: int | None) -> None:
    path = tmp_path / "steps.csv"
    if present is not None:
        write(path, 0, present)
    with pytest.raises(MtbertError, match=rf"steps\.csv: has {present or 0} steps, but the checkpoint .* 3") as caught:
        StepLog(path, 3)
    assert f"remove {tmp_path}" in str(caught.value)


def cut_a_line(lines: list[str]) -> None:
    del lines[2]


def change_a_digit(lines: list[str]) -> None:
    lines[2] = lines[2].replace("20", "21")


def swap_lines(lines: list[str]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def another_header(lines: list[str]) -> None:
    lines[0] = lines[0].upper()


def bytes_of_no_text(lines: list[str]) -> None:
    lines[3] = "\udcff" + lines[3]


@pytest.mark.parametrize("change", [cut_a_line, change_a_digit, swap_lines, another_header, bytes_of_no_text])
def test_lines_that_are_not_the_checkpoint_s_are_refused(tmp_path: Path, change: Callable[[list[str]], None]) -> None:
    path, checksum = tmp_path / "steps.csv", ""
    write(path, 0, 6)
    for step in STEPS[:4]:
        checksum = log_checksum(checksum, log_line(step))
    StepLog(path, 4, checksum).close()
    write(path, 4, 6)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(MtbertError, match=r"steps\.csv: its first 4 steps are not those .*; remove") as caught:
        StepLog(path, 4, checksum)
    assert f"remove {tmp_path} to train" in str(caught.value)


def test_the_curve_is_written_at_every_epoch(tmp_path: Path) -> None:
    curve, path = LearningCurve(tmp_path / "plots/run.csv"), tmp_path / "plots/run.csv"
    for epochs in (1, 2, 3):
        curve.epoch(ROWS[:epochs])
        assert path.read_text(encoding="utf-8").count("\n") == 1 + epochs


def test_history_is_csv_with_empty_cells_for_what_is_undefined(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", ROWS)
    lines = (tmp_path / "history.csv").read_bytes().split(b"\n")
    assert lines[:3] == [b"epoch,step,train_loss,dev_sst", b"0,0,,0.25", b"1,3,0.5,"]
    assert float(lines[3].split(b",")[2]) == 0.1 + 0.2
