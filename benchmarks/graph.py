"""The graph's overhead: a no-op `dvc repro` against one of as many trivial stages, and the start-up time of `mtbert`."""

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from ruamel.yaml import YAML

from benchmarks.harness import Target, alternate, publish, ratio


def main(rounds: int = 7) -> None:
    """Needs a finished `dvc repro` in the current folder."""
    stages = len(_run(["dvc", "stage", "list", "--name-only"]).split())
    with tempfile.TemporaryDirectory() as place:
        trivial = Path(place)
        _chain(trivial, stages)
        output = _run(["dvc", "repro"])
        if "Running stage" in output:
            raise SystemExit("error: the graph was not up to date; it is now, so run this again")
        cases = {
            "mtbert": _timed(["dvc", "repro"], Path()),
            "trivial stages": _timed(["dvc", "repro"], trivial),
            "mtbert --help": _timed(["mtbert", "--help"], Path()),
        }
        rates = alternate(cases, rounds)
    targets = [
        Target("no-op repro over that of trivial stages", ratio(rates, "trivial stages", "mtbert"), 1.2, True),
        Target("stages", stages, 79, True),
        Target("seconds of mtbert --help", 1 / statistics.median(rates["mtbert --help"]), 0.3, True),
    ]
    publish("graph", "calls/s", rates, ours="mtbert", targets=targets, stages=stages)


def _chain(folder: Path, stages: int) -> None:
    """A DVC project of stages that each copy one small file to the next."""
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "config", "core.analytics", "false"]):
        _run(command, folder)
    (folder / "file0").write_text("0")
    chain = {
        f"stage{n}": {"cmd": f"cp file{n} file{n + 1}", "deps": [f"file{n}"], "outs": [f"file{n + 1}"]}
        for n in range(stages)
    }
    YAML().dump({"stages": chain}, folder / "dvc.yaml")
    _run(["dvc", "repro", "-q"], folder)


def _timed(command: Sequence[str], folder: Path) -> Callable[[], float]:
    def case() -> float:
        _run(command, folder)
        return 1.0

    return case


def _run(command: Sequence[str], folder: Path = Path()) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    typer.run(main)
