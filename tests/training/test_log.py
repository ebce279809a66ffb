"""steps.csv, history.csv and dvclive's files are the same whether or not a run was interrupted."""

from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.training.log import Live, StepLog, write_history
from mtbert.training.loop import Step

STEPS = [Step(step, 6, 1 + step // 4, "sst", 1 / step, 10 * step) for step in range(1, 7)]
ROWS = [
    {"epoch": 0, "step": 0, "train_loss": None, "dev_sst": 0.25},
    {"epoch": 1, "step": 3, "train_loss": 0.5, "dev_sst": None},
    {"epoch": 2, "step": 6, "train_loss": 0.1 + 0.2, "dev_sst": 1.0},
]


def write(path: Path, done: int, upto: int) -> None:
    log = StepLog(path, done)
    for step in STEPS[done:upto]:
        log.write(step)
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


def test_a_line_is_on_its_way_when_write_returns(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "steps.csv", 0)
    log.write(STEPS[0])
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


def test_history_is_csv_with_empty_cells_for_what_is_undefined(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", ROWS)
    lines = (tmp_path / "history.csv").read_bytes().split(b"\n")
    assert lines[:3] == [b"epoch,step,train_loss,dev_sst", b"0,0,,0.25", b"1,3,0.5,"]
    assert float(lines[3].split(b",")[2]) == 0.1 + 0.2


def live_files(folder: Path) -> dict[str, list[str]]:
    """The plots' lines without their time stamps, which dvclive adds to each, and the summary."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            if path.suffix == ".tsv" and "timestamp" in lines[0]:
                place = lines[0].split("\t").index("timestamp")
                lines = ["\t".join(c for n, c in enumerate(line.split("\t")) if n != place) for line in lines]
            files[str(path.relative_to(folder))] = lines
    return files


def test_live_metrics_of_a_resumed_run(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    live = Live(whole)
    for row in ROWS:
        live.write(row)
    live.close()
    live = Live(resumed)
    live.write(ROWS[0])
    live.write(ROWS[1])  # killed here
    live = Live(resumed)
    for row in ROWS:
        live.write(row)
    live.close()
    assert live_files(resumed) == live_files(whole)
    told = "\n".join("\n".join(lines) for lines in live_files(whole).values())
    assert "dev_sst" in told
    assert "0.30000000000000004" in told
