"""The list of files and how to run one; apart from the command, so that other processes can import it."""

import importlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from tests.reliability.trial import Trial

# The longest first, so that processes finish at about the same time.
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
    """Run tests/reliability/NAME.py in a temporary folder."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtbert-") as folder:
        trials: list[Trial] = importlib.import_module(f"tests.reliability.{name}").run(quick, seed, Path(folder))
    seconds = round((time.monotonic() - began) / len(trials), 1)
    return [replace(trial, seconds=seconds) for trial in trials]
