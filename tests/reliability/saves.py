"""Figure 3: a kill at any line of saving a checkpoint leaves a readable state, and the next save removes leftovers.

Kills while folders and single files are written are in tests/test_files.py, those of steps.csv in
tests/training/test_log.py.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import mtbert.files
from mtbert.errors import MtbertError
from mtbert.training import checkpoint
from mtbert.training.checkpoint import load_checkpoint, save_checkpoint
from mtbert.training.work import LATEST
from tests.project import forked, isolated
from tests.reliability.trial import Tally

TRACED = {mtbert.files.__file__, checkpoint.__file__}
OLD, NEW, LATER = 3, 5, 7  # steps of three checkpoints


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Figure 3, in a process of its own."""
    return isolated(_trials, quick, seed, folder)


def _trials(quick: bool, seed: int, folder: Path) -> list[Tally]:
    tally = Tally(3, "kill before and after every step of a save", "0 unreadable, 0 leftovers", seed)
    every = 5 if quick else 1
    save = Checkpoint(folder / "work")
    for kill in (_at_line, _inside_write):
        for n, fault in _kills(save, kill, every):
            tally.trial(not fault, f"killed {kill.__name__[1:]} {n}: {fault}")
    for bug, plant in PLANTED:
        tally.control(
            any(fault for kill in (_at_line, _inside_write) for _, fault in _kills(save, kill, every, plant)), bug
        )
    return [tally]


def _kills(
    save: "Checkpoint", kill: Callable[[int], None], every: int, plant: Callable[[], None] | None = None
) -> Iterator[tuple[int, str]]:
    """Kill a save at its 1st, 2nd, ... point until it completes; yields (point, fault)."""
    point = 1
    while True:
        save.begin()

        def work(point: int = point) -> None:
            if plant:
                plant()
            kill(point)
            save.save()
            sys.settrace(None)

        status = forked(work)
        if status == 0:
            return
        yield point, save.fault() if status == -signal.SIGKILL else f"exit status {status}"
        point += every if kill is _at_line else 1


def _at_line(point: int) -> None:
    """Kill this process at the point-th line executed in mtbert.files and mtbert.training.checkpoint."""
    left = [point]

    def local(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    sys.settrace(lambda frame, _event, _argument: local if frame.f_code.co_filename in TRACED else None)


def _inside_write(point: int) -> None:
    """Kill this process after half of the bytes of its point-th file."""
    real, left = os.fdopen, [point]

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Half":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            left[0] -= 1
            self.file.write(data[: len(data) // 2] if left[0] == 0 else data)
            if left[0] == 0:
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

    patch.object(os, "fdopen", lambda *arguments: Half(real(*arguments))).start()


def _trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def _same(one: tuple[nn.Module, torch.optim.Optimizer], other: tuple[nn.Module, torch.optim.Optimizer]) -> bool:
    pairs = zip(one[0].parameters(), other[0].parameters(), strict=True)
    return all(
        torch.equal(mine, theirs)
        and all(torch.equal(value, other[1].state[theirs][key]) for key, value in one[1].state[mine].items())
        for mine, theirs in pairs
    )


class Checkpoint:
    """Saves a second checkpoint over the first, which `begin` restores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = {step: _trained(step) for step in (OLD, NEW, LATER)}

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        save_checkpoint(self.folder, *self.states[OLD], OLD, {"tokens": OLD})

    def save(self) -> None:
        save_checkpoint(self.folder, *self.states[NEW], NEW, {"tokens": NEW})

    def fault(self) -> str:
        """What is wrong with the state after the kill, or with the files after the next save; empty if nothing is."""
        found = _trained(0)
        try:
            step, progress, _ = load_checkpoint(self.folder, *found) or (0, {}, {})
        except MtbertError as error:
            return str(error)
        if step not in (OLD, NEW) or progress != {"tokens": step} or not _same(self.states[step], found):
            return f"neither the old nor the new state, but step {step}"
        save_checkpoint(self.folder, *self.states[LATER], LATER, {})
        kept = json.loads((self.folder / LATEST).read_text(encoding="utf-8"))["file"]
        left = {path.name for path in self.folder.iterdir()} - {LATEST, kept}
        return f"left over: {sorted(left)}" if left else ""


def _in_place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)


def _plant_in_place() -> None:
    patch.object(checkpoint, "atomic_write_bytes", _in_place).start()
    patch.object(mtbert.files, "atomic_write_bytes", _in_place).start()


def _plant_early_removal() -> None:
    """Remove the old checkpoint before the new one is valid."""
    real = checkpoint.atomic_write_bytes

    def write(path: Path, data: bytes) -> None:
        for old in path.parent.glob("step-*"):
            old.unlink()
        real(path, data)

    patch.object(checkpoint, "atomic_write_bytes", write).start()


PLANTED: list[tuple[str, Callable[[], None]]] = [
    ("files written in place", _plant_in_place),
    ("the old checkpoint removed before the new one is valid", _plant_early_removal),
]
