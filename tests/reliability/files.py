"""The list of files and how to run one; apart from the command, so that other processes can import it."""

import importlib
import tempfile
import time
from pathlib import Path

import torch

from tests.reliability.trial import Tally

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


def run(name: str, quick: bool, seed: int) -> list[Tally]:
    """Run tests/reliability/NAME.py in a temporary folder."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtbert-") as folder:
        tallies: list[Tally] = importlib.import_module(f"tests.reliability.{name}").run(quick, seed, Path(folder))
    for tally in tallies:
        tally.seconds = round((time.monotonic() - began) / len(tallies), 1)
    return tallies
