"""Which files there are, and how one is run: apart from the command, so that another process can import it."""

import importlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from tests.reliability.trial import Trial

# The longest first, so that no process is left alone with them at the end.
FILES = (
    "leaks",
    "clones",
    "mutations",
    "kills",
    "saves",
    "data",
    "fuzz",
    "weights",
    "settings",
    "samplers",
    "independence",
    "dora",
    "hostile",
    "loss",
    "writers",
    "disk",
    "cache",
    "parity",
)


def run(name: str, quick: bool, seed: int) -> list[Trial]:
    """The figures of tests/reliability/NAME.py, in a folder that is removed afterwards."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtbert-") as folder:
        trials: list[Trial] = importlib.import_module(f"tests.reliability.{name}").run(quick, seed, Path(folder))
    seconds = round((time.monotonic() - began) / len(trials), 1)
    return [replace(trial, seconds=seconds) for trial in trials]
