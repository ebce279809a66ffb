"""The one command for a GPU is rehearsed where there is none, since whoever has one has it for half an hour."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = {"graphs", "large", "adapters", "8", "several", "paper"}


@pytest.mark.slow
def test_the_gpu_s_benchmark_runs_through(root: Path) -> None:
    folder = root / "reports/benchmarks/rehearsal"
    for old in folder.glob("gpu-*.json"):
        old.unlink()
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = {path.stem.removeprefix("gpu-"): json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    assert told.keys() == PARTS
    assert not any(one.get("failed") for one in told.values())
    assert told["paper"]["complete"]
    assert len(told["several"]["cases"]) == 4
