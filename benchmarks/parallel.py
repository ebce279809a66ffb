"""The whole graph by `dvc repro`, a stage at a time, and by Snakemake on all cores; one thread a stage, each in a fresh clone."""

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import typer
from ruamel.yaml import YAML

from benchmarks.harness import Timed, alternate, publish
from mtbert.workflow.snakemake import RECORD, SNAKEFILE

DVC = "dvc repro"
SNAKEMAKE = f"mtbert workflow snakemake && snakemake --snakefile {SNAKEFILE} --cores all && {RECORD}"


def main(rounds: int = 1) -> None:
    """Needs a git checkout without changes and an idle machine; on two cores a round of the profile `sample` takes some ten minutes."""
    rates = alternate({"dvc": partial(_run, DVC), "snakemake": partial(_run, SNAKEMAKE)}, rounds, warmup=0)
    publish("parallel", "graphs/hour", rates, ours="snakemake", cores=len(os.sched_getaffinity(0)))


def _run(command: str) -> Timed:
    """Clone the checkout, run the command there, and check that DVC then finds everything up to date."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["git", "clone", "--quiet", ".", place], check=True)
        params, yaml = Path(place) / "params.yaml", YAML()
        settings = yaml.load(params)
        settings["compute"]["threads"] = 1
        yaml.dump(settings, params)
        shell = partial(
            subprocess.run, cwd=place, env={**os.environ, "PYTHONPATH": place}, stdout=subprocess.PIPE, text=True
        )
        began = time.perf_counter()
        shell(["bash", "-ec", command], check=True)
        seconds = time.perf_counter() - began
        status = shell(["dvc", "status"], check=True).stdout
        if "up to date" not in status:
            raise SystemExit(f"error: {command} left stages to run:\n{status}")
    return Timed(3600, seconds)


if __name__ == "__main__":
    typer.run(main)
